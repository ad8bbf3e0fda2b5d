//! Bytes ↔ values of everything a BMC's port 623 carries: RMCP and its ASF ping ([`rmcp`]), the session
//! wrappers of IPMI 1.5 ([`v15`]) and 2.0 ([`v20`]), the messages that open a 2.0 session ([`rakp`]) and
//! Serial over LAN ([`sol`]). Nothing here keeps state; nothing here trusts a length.

pub mod rakp;
pub mod rmcp;
pub mod sol;
pub mod v15;
pub mod v20;

/// Bytes that are not what they claim to be, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Takes the first `N` bytes off the front.
pub(crate) fn take<const N: usize>(
    bytes: &mut &[u8],
    short: &'static str,
) -> Result<[u8; N], Malformed> {
    let (first, rest) = bytes.split_first_chunk::<N>().ok_or(Malformed(short))?;
    *bytes = rest;
    Ok(*first)
}
