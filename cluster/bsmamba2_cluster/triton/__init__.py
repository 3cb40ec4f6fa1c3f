"""Models on NVIDIA Triton Inference Server: write its repository, separate with its server."""

from bsmamba2_cluster.triton.engine import connect, open_engine
from bsmamba2_cluster.triton.repository import write_repository
from bsmamba2_cluster.triton.server_options import ServerOptions

__all__ = ["ServerOptions", "connect", "open_engine", "write_repository"]
