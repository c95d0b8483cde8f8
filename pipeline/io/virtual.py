"""XML that names other files, read by ourselves: what a virtual raster (VRT) and a product's metadata lead to.

Of a virtual raster everything is refused that is not known to be harmless: GDAL takes attributes for elements, and
cares for neither case nor order, so that a list of what is dangerous would never be whole.
"""

from collections.abc import Iterator
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from models.errors import SceneError

from .names import printable

# of GDAL's gdalvrt.xsd, without what runs code, holds data of others, or opens files by names of its own
ELEMENTS = (
    "VRTDataset SRS GeoTransform GCPList GCP Metadata MDI MaskBand OverviewList BlockXSize BlockYSize VRTRasterBand "
    "ColorInterp NoDataValue NodataValue HideNoDataValue ColorTable Entry Description UnitType Offset Scale "
    "CategoryNames Category Histograms HistItem HistMin HistMax BucketCount IncludeOutOfRange Approximate "
    "HistCounts GDALRasterAttributeTable FieldDefn Name Type Usage Row F Overview SimpleSource ComplexSource "
    "AveragedSource NoDataFromMaskSource KernelFilteredSource SourceFilename SourceBand SourceProperties SrcRect "
    "DstRect NODATA UseMaskBand ScaleOffset ScaleRatio LUT ColorTableComponent Exponent SrcMin SrcMax DstMin DstMax "
    "MaskValueThreshold RemappedValue Kernel Size Coefs PixelFunctionType PixelFunctionLanguage "
    "PixelFunctionArguments SourceTransferType BufferRadius SkipNonContributingSources GDALWarpOptions "
    "WarpMemoryLimit ResampleAlg WorkingDataType Option SourceDataset Transformer ApproxTransformer MaxError "
    "BaseTransformer GenImgProjTransformer SrcGeoTransform SrcInvGeoTransform DstGeoTransform DstInvGeoTransform "
    "SrcGCPTransformer GCPTransformer Order Reversed ReprojectTransformer ReprojectionTransformer SourceSRS "
    "TargetSRS SourceCRS TargetCRS BandList BandMapping SrcNoDataReal SrcNoDataImag DstNoDataReal DstNoDataImag "
    "SrcAlphaBand DstAlphaBand Cutline CutlineBlendDist PansharpeningOptions Algorithm AlgorithmOptions Weights "
    "Resampling NumThreads BitDepth NoData SpatialExtentAdjustment PanchroBand SpectralBand"
)
ATTRIBUTES = (
    "rasterXSize rasterYSize dataType band subClass blockXSize blockYSize relativeToVRT relativetoVRT shared name "
    "key domain format dataAxisToSRSAxisMapping coordinateEpoch RasterXSize RasterYSize DataType BlockXSize "
    "BlockYSize xOff yOff xSize ySize resampling normalized Projection Id Info Pixel Line X Y Z GCPZ index "
    "tableType Row0Min BinSize c1 c2 c3 c4 src dst dstBand level"
)
SUBCLASSES = {
    "VRTDataset": {"VRTWarpedDataset", "VRTPansharpenedDataset"},
    "VRTRasterBand": {
        "VRTSourcedRasterBand", "VRTWarpedRasterBand", "VRTDerivedRasterBand", "VRTPansharpenedRasterBand",
    },
}  # fmt: skip
POINTERS = ("OVERVIEW_FILE", "X_DATASET", "Y_DATASET")  # items of metadata by which GDAL opens files
HREFS = ("href", "data_file_path", "component_path", "filelocation")  # by which metadata of products name files


def parse_xml(path: str, content: bytes) -> Element:
    """Parse XML without document types and entities: no product has any, and by them a small text becomes a huge one.

    Raises
    ------
    SceneError
        It is not well-formed, or has any.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise SceneError(f"{path} declares a document type or entities, which metadata of a product do not: not read")

    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
        return builder.close()
    except (expat.ExpatError, AssertionError, ValueError, LookupError) as error:
        raise SceneError(f"{path} is damaged XML: {printable(str(error))[:100]}") from error


def files_of_vrt(path: str, content: bytes) -> list[tuple[str, bool]]:
    """Return the names of files that a virtual raster draws on, and whether each is relative to it.

    Raises
    ------
    SceneError
        It is damaged, or has what is not known to be harmless.
    """
    root = parse_xml(path, content)
    if root.tag != "VRTDataset":
        raise SceneError(f"{path} is no virtual raster: it begins with <{printable(root.tag)[:40]}>")
    found = dict[tuple[str, bool], None]()
    for element in _looked_at(root):
        _refuse_unknown(path, element, root)
        if element.tag in ("SourceFilename", "SourceDataset"):
            found[element.text or "", _is_relative(path, element)] = None
    return list(found)


def _looked_at(element: Element) -> Iterator[Element]:
    """Return an element and those in it; of metadata, which may hold any XML, the items alone."""
    yield element
    for part in element:
        if element.tag != "Metadata" or part.tag.upper() == "MDI":
            yield from _looked_at(part)


def _refuse_unknown(path: str, element: Element, root: Element) -> None:
    tag, attributes = element.tag, set(element.keys()) if element.tag != "PixelFunctionArguments" else set[str]()
    unknown = [] if tag in ELEMENTS.split() and (tag != "VRTDataset" or element is root) else [f"<{tag}>"]
    unknown += sorted(attributes - set(ATTRIBUTES.split()))
    kind = element.get("subClass")
    if kind is not None and kind not in SUBCLASSES.get(tag, ()):
        unknown.append(kind)
    if tag == "PixelFunctionLanguage" and (element.text or "").strip().lower() not in ("c", "c++"):
        unknown.append("functions in other languages than C++")
    if tag == "MDI" and element.get("key", "").upper() in POINTERS:
        unknown.append(element.get("key", ""))
    if unknown:
        raise SceneError(f"{path} has {printable(unknown[0])[:60]}, by which a virtual raster may run code or read any "
                         "file: not opened")  # fmt: skip


def _is_relative(path: str, element: Element) -> bool:
    said = {element.get(name, "0") for name in ("relativeToVRT", "relativetoVRT")}
    if not said <= {"0", "1"}:
        raise SceneError(f"{path} has a relativeToVRT that is neither 0 nor 1: not opened")
    return "1" in said


def files_of_product(path: str, content: bytes) -> list[str]:
    """Return the names of files that a product's metadata in XML lead to. Raises SceneError if they are damaged."""
    root, found = parse_xml(path, content), list[str]()
    for element in root.iter():
        found += [value for name, value in element.items() if _local(name) in HREFS]
        found += [element.text or ""] if _local(element.tag) in HREFS else []
    return [name for name in dict.fromkeys(text.strip() for text in found) if name]


def _local(tag: str) -> str:
    return tag.rpartition(":")[2].lower()
