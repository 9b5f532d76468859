//! Randomness from the operating system: for ids, keys and the seed of the replica.

/// The system gave no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers: {0}")]
pub struct NoRandomness(getrandom::Error);

fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(NoRandomness)?;
    Ok(bytes)
}

/// 64 random bits.
///
/// # Errors
/// See [`NoRandomness`].
pub fn bits64() -> Result<u64, NoRandomness> {
    bytes().map(u64::from_be_bytes)
}

/// 128 random bits.
///
/// # Errors
/// See [`NoRandomness`].
pub fn bits128() -> Result<u128, NoRandomness> {
    bytes().map(u128::from_be_bytes)
}

/// A random UUID (RFC 9562, version 4).
///
/// # Errors
/// See [`NoRandomness`].
pub fn uuid_v4() -> Result<u128, NoRandomness> {
    let version = !(0xf << 76) & !(0x3 << 62);
    Ok((bits128()? & version) | (0x4 << 76) | (0x2 << 62))
}

/// 32 random bytes as 64 hexadecimal digits.
///
/// # Errors
/// See [`NoRandomness`].
pub fn hex_key() -> Result<String, NoRandomness> {
    Ok(format!("{:032x}{:032x}", bits128()?, bits128()?))
}
