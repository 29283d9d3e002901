"""Raster files as GDAL writes them."""
import subprocess


def write_tif(path, array, *options):
    """A GeoTIFF of all bands, made by GDAL from raw bytes."""
    names = {"uint16": "UInt16", "int16": "Int16", "float32": "Float32", "uint8": "Byte", "float64": "Float64"}
    raw = path.with_suffix(".raw")
    raw.write_bytes(array.tobytes())
    bands, height, width = array.shape
    size = array.dtype.itemsize
    vrt = f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">' + "".join(
        f'<VRTRasterBand dataType="{names[str(array.dtype)]}" band="{b + 1}" subClass="VRTRawRasterBand">'
        f'<SourceFilename relativetoVRT="1">{raw.name}</SourceFilename><ImageOffset>{b * width * height * size}'
        f'</ImageOffset><PixelOffset>{size}</PixelOffset><LineOffset>{width * size}</LineOffset>'
        f'<ByteOrder>LSB</ByteOrder></VRTRasterBand>' for b in range(bands)) + "</VRTDataset>"
    path.with_suffix(".vrt").write_text(vrt)
    subprocess.run(["gdal_translate", "-q", "-of", "GTiff", "-a_srs", "EPSG:32631", "-a_ullr", "500000", "4600000",
                    str(500000 + 10 * width), str(4600000 - 10 * height), *options, path.with_suffix(".vrt"), path],
                   check=True)
    return path


def creation(*options):
    """Creation options as gdal_translate wants them."""
    return [word for option in options for word in ("-co", option)]
