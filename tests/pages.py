"""What is asked of a page in a browser, beside the fixtures `browser` and `visit` of conftest."""

CONTRAST = """
() => {
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.8) return c;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility() || element.closest("script,style,title")) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))].sort();
    if ((b + 0.05) / (a + 0.05) < 4.5) poor.push([node.textContent.trim(), (b + 0.05) / (a + 0.05)]);
  }
  return poor;
}
"""
