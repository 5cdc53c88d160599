"""Where older programs import the SDK from: ``from titan_sdk.titan_sdk import TitanClient, TitanJob``."""

from titan_sdk.client import TitanClient
from titan_sdk.job import TitanJob

__all__ = ["TitanClient", "TitanJob"]
