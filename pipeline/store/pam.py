"""What lies beside a map for GDAL, QGIS and ArcGIS: names and colours of its classes, as GDAL's auxiliary metadata."""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from models.metadata import ClassInfo


def class_elements(classes: Sequence[ClassInfo], transparent: int | None) -> list[ET.Element]:
    """Return the elements of a band that say its classes, as PAM files and VRTs have them.

    Parameters
    ----------
    classes
        By value.
    transparent
        Value of the class that is not shown; None: all are.
    """
    colours = [(*info.rgb, 0 if value == transparent else 255) for value, info in enumerate(classes)]
    kind = ET.Element("ColorInterp")
    kind.text = "Palette"
    palette = ET.Element("ColorTable")
    for colour in colours:
        ET.SubElement(palette, "Entry", {f"c{n}": str(part) for n, part in enumerate(colour, 1)})
    names = ET.Element("CategoryNames")
    for info in classes:
        ET.SubElement(names, "Category").text = info.name
    return [kind, palette, names, _attribute_table(classes, colours)]


def _attribute_table(classes: Sequence[ClassInfo], colours: Sequence[tuple[int, int, int, int]]) -> ET.Element:
    table = ET.Element("GDALRasterAttributeTable", tableType="thematic")
    # usage as GDALRATFieldUsage: 5 value (minimum and maximum), 2 name, 6 to 9 colour and alpha; type 0 int, 2 text
    for index, (title, kind, usage) in enumerate(
        [("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8), ("Alpha", 0, 9)]
    ):
        field = ET.SubElement(table, "FieldDefn", index=str(index))
        for tag, text in (("Name", title), ("Type", str(kind)), ("Usage", str(usage))):
            ET.SubElement(field, tag).text = text
    for value, info in enumerate(classes):
        row = ET.SubElement(table, "Row", index=str(value))
        for cell in (value, info.name, *colours[value]):
            ET.SubElement(row, "F").text = str(cell)
    return table


def auxiliary(classes: Sequence[ClassInfo], transparent: int | None) -> bytes:
    """Return GDAL's auxiliary metadata (PAM): colours and names of the classes, twice.

    The palette in the TIFF itself has 256 entries and no transparency, by the specification. What lies beside it comes
    first for GDAL: the colour table, of which all QGIS before 3.30 make their legend; and for QGIS from there on, and
    ArcGIS, the attribute table. In both there are the classes alone, one of them `transparent`.
    """
    root = ET.Element("PAMDataset")
    ET.SubElement(root, "PAMRasterBand", band="1").extend(class_elements(classes, transparent))
    ET.indent(root)
    # no XML declaration: GDAL 3.6 overlooks all that follows one
    return ET.tostring(root, encoding="utf-8", xml_declaration=False)  # type: ignore[no-any-return]
