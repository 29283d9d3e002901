"""An image model that gets the slot's own memory and gives labels."""

import numpy as np

import unetserve.litserve as ls


class Brightest(ls.LitAPI):
    tensor = ls.Tensor(channels=3, dtypes=("float32", "uint16"), tile=64,
                       classes=[("red", 1, (255, 0, 0)), ("green", 2, (0, 255, 0)), ("blue", 3, (0, 0, 255))])

    def setup(self, device):
        pass

    def decode_request(self, image):
        if image.flags.writeable or image.flags.owndata:
            raise ls.HTTPException(500, "this is a copy")
        return image

    def predict(self, image):
        return image.argmax(axis=0).astype(np.uint8)


if __name__ == "__main__":
    ls.LitServer(Brightest()).run(host="127.0.0.1", port=0)
