// Of the report's page: the slider, the choice of layer, zoom and pan. Without it the page shows image and map halved.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const frame = byId("frame"), view = byId("view"), split = byId("split");
  const size = { width: Number(frame.dataset.width), height: Number(frame.dataset.height) };
  const metres = Number(frame.dataset.metres); // per pixel of the preview; 0 where not known
  const place = { x: 0, y: 0, k: 1 };

  // the slider

  function slide() {
    frame.style.setProperty("--split", `${split.value}%`);
    split.setAttribute("aria-valuetext", `${split.value} % ${document.querySelector(".tag.left").textContent.toLowerCase()}`);
  }
  if (split) split.addEventListener("input", slide);

  // the choice of layer

  function choose(input) {
    for (const image of view.querySelectorAll("img[data-layers]")) {
      image.hidden = !image.dataset.layers.split(" ").includes(input.value);
    }
    const fading = byId("strength");
    if (fading) fading.parentElement.hidden = !view.querySelector("img.fades:not([hidden])");
    const name = input.parentElement.textContent.trim(), tag = byId("over-name");
    if (!tag) return;
    tag.textContent = name;
    const left = document.querySelector(".tag.left").textContent;
    split.setAttribute("aria-label", `${left} on the left, ${name.toLowerCase()} on the right: where they meet`);
  }
  for (const input of document.querySelectorAll("input[name=layer]")) {
    input.addEventListener("change", () => choose(input));
    if (input.checked) choose(input); // a browser may remember another choice than the page's
  }
  const strength = byId("strength");
  function fade() {
    frame.style.setProperty("--strength", strength.value / 100);
    strength.setAttribute("aria-valuetext", `${strength.value} %`);
  }
  if (strength) strength.addEventListener("input", fade);

  // zoom and pan

  // pixels of the screen per pixel of the preview, when all of it is shown
  const fitted = () => Math.min(frame.clientWidth / size.width, frame.clientHeight / size.height);
  const mostZoom = () => Math.max(8, 6 / fitted());
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  function show() {
    place.k = clamp(place.k, 1, mostZoom());
    place.x = clamp(place.x, frame.clientWidth * (1 - place.k), 0);
    place.y = clamp(place.y, frame.clientHeight * (1 - place.k), 0);
    view.style.setProperty("--x", `${place.x}px`);
    view.style.setProperty("--y", `${place.y}px`);
    view.style.setProperty("--k", place.k);
    view.classList.toggle("zoomed", place.k > 1);
    view.classList.toggle("near", place.k * fitted() > 2);
    byId("zoom-in").setAttribute("aria-disabled", place.k >= mostZoom());
    for (const id of ["zoom-out", "zoom-all"]) byId(id).setAttribute("aria-disabled", place.k <= 1);
    showScale();
  }
  function zoom(factor, x = frame.clientWidth / 2, y = frame.clientHeight / 2) {
    const k = clamp(place.k * factor, 1, mostZoom()), change = k / place.k;
    Object.assign(place, { x: x - (x - place.x) * change, y: y - (y - place.y) * change, k });
    show();
  }
  function move(x, y) {
    place.x += x;
    place.y += y;
    show();
  }
  function showAll() {
    Object.assign(place, { x: 0, y: 0, k: 1 });
    show();
  }
  function showScale() {
    const scale = byId("scale"), perPixel = metres / (fitted() * place.k);
    scale.hidden = !metres;
    if (!metres) return;
    const most = perPixel * Math.min(160, frame.clientWidth / 3), power = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].map((step) => step * power).find((step) => step <= most);
    const text = length >= 1000 ? `${length / 1000} km` : length >= 1 ? `${length} m` : `${Math.round(length * 100)} cm`;
    scale.querySelector("span").textContent = text;
    scale.querySelector("i").style.width = `${length / perPixel}px`;
  }
  byId("zoom-in").addEventListener("click", () => zoom(1.6));
  byId("zoom-out").addEventListener("click", () => zoom(1 / 1.6));
  byId("zoom-all").addEventListener("click", showAll);
  new ResizeObserver(show).observe(frame);

  view.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const across = frame.clientWidth * 0.15, down = frame.clientHeight * 0.15;
    const actions = {
      ArrowLeft: () => move(across, 0), ArrowRight: () => move(-across, 0),
      ArrowUp: () => move(0, down), ArrowDown: () => move(0, -down),
      "+": () => zoom(1.3), "=": () => zoom(1.3), "-": () => zoom(1 / 1.3), _: () => zoom(1 / 1.3), 0: showAll,
    };
    if (!(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  });

  // the wheel zooms once the pointer has moved here; who scrolls past is not caught
  let meant = false;
  window.addEventListener("scroll", () => { meant = false; }, { passive: true });
  frame.addEventListener("pointermove", (event) => { meant ||= event.movementX !== 0 || event.movementY !== 0; });
  frame.addEventListener("pointerleave", () => { meant = false; });
  frame.addEventListener("wheel", (event) => {
    const out = event.deltaY > 0;
    if (!event.ctrlKey && (!meant || (out && place.k <= 1))) return;
    event.preventDefault();
    const box = frame.getBoundingClientRect(), lines = event.deltaMode === 1 ? 16 : 1;
    const amount = clamp(event.deltaY * lines, -120, 120) * (event.ctrlKey ? 0.01 : 0.0025);
    zoom(Math.exp(-amount), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  view.addEventListener("dblclick", (event) => {
    const box = frame.getBoundingClientRect();
    zoom(2, event.clientX - box.left, event.clientY - box.top);
  });

  // one pointer pans, two pinch
  const pointers = new Map();
  const middle = () => {
    const all = [...pointers.values()], [one, two] = [all[0], all[1] ?? all[0]];
    return { x: (one.x + two.x) / 2, y: (one.y + two.y) / 2, apart: Math.hypot(one.x - two.x, one.y - two.y) };
  };
  view.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || pointers.size > 1) return;
    view.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    view.classList.add("moving");
  });
  view.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId)) return;
    const before = middle();
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const now = middle(), box = frame.getBoundingClientRect();
    place.x += now.x - before.x;
    place.y += now.y - before.y;
    if (pointers.size === 2 && before.apart > 0) zoom(now.apart / before.apart, now.x - box.left, now.y - box.top);
    else show();
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    view.addEventListener(kind, (event) => {
      pointers.delete(event.pointerId);
      if (!pointers.size) view.classList.remove("moving");
    });
  }

  if (split) slide();
  if (strength) fade();
  show();
})();
