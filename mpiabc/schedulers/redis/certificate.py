"""A certificate for a broker, by the library `cryptography`: clients know it, and need no authority."""

from datetime import UTC, datetime, timedelta

from mpiabc.errors import SchedulerError

_LASTS = timedelta(days=3650)  # longer than any broker; and clients do not look at the date


def made(host: str) -> tuple[str, str]:
    """A new certificate that vouches for itself, and its private key, in PEM. Raises SchedulerError."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise SchedulerError(
            "a broker that other machines reach speaks TLS, and `cryptography`, which makes certificates, "
            "is not installed: install `mpiabc[broker]`"
        ) from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host[:64])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _LASTS)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()
