"""A tier on any server that speaks SFTP: ``backend = "sftp"``. Nothing but the public name."""

from tieredstore_sftp.backend import SftpBackend

__all__ = ["SftpBackend"]
