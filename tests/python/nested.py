"""A request of models within models, and of more fields than unetserve has words for."""

import enum
import sys
from typing import Dict, List, Literal, Optional, Union

import unetserve.litserve as ls
from pydantic import BaseModel, Field


class Band(BaseModel):
    name: str = Field(min_length=3)
    wavelength_nm: float = Field(gt=300, lt=3000)


class Level(enum.Enum):
    SURFACE = "L2A"
    TOP = "L1C"


class Region(BaseModel):
    code: int
    parts: List["Region"] = []


class Product(BaseModel):
    bands: List[Band]
    level: Level = Level.SURFACE
    orbit: Literal["up", "down"]
    notes: Optional[Dict[str, str]] = None
    region: Region
    discriminator: int
    sun: float
    view: float
    rows: int = Field(ge=7)
    columns: int
    tile: Union[int, str]


class Told(BaseModel):
    bands: List[Band]
    pixels: int


class Products(ls.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request: Product):
        return request

    def predict(self, x):
        return Told(bands=x.bands, pixels=x.rows * x.columns)

    def encode_response(self, output) -> Told:
        return output


if __name__ == "__main__":
    ls.LitServer(Products()).run(port=int(sys.argv[1]))
