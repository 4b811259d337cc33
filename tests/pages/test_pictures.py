import base64
import io

from PIL import Image

from automl.pages.pictures import encode_picture


def test_a_picture_is_a_jpeg_in_the_page_itself():
    uri = encode_picture(Image.new("RGB", (30, 20), "#804020"), subsampling=0)
    kind, _, data = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert (image.format, image.size) == ("JPEG", (30, 20))
