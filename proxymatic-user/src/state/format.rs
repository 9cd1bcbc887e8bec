//! The format of the file: a header line with length and checksum, then the answers as JSON. Pure.
//!
//! Decoding never panics: bytes are either a file that some agent wrote, or [`Damage`].

use serde::{Deserialize, Serialize};

use super::{State, wire::Body};

/// The version of the format. A reader accepts no other version. Fields come and go without a new version; it changes
/// only when a field gets another meaning.
pub const VERSION: u32 = 1;

/// The size limit of the file, in bytes: some hundred times what the maps hold by default.
pub const MOST: u64 = 256 << 20;

/// The value of `proxymatic` in the header.
const KIND: &str = "state";

/// The length limit of the header line, in bytes.
const LONGEST_HEADER: usize = 256;

/// The reason why bytes are not the state of an agent of this version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The header is missing, or is something else.
    #[error("it does not begin with the header of a state file")]
    Foreign,
    /// Another version wrote the file.
    #[error("it is of version {0}, and this agent reads version {VERSION}")]
    Version(u64),
    /// The file is too short or too long.
    #[error("it has {has} bytes after its header, which announces {says}")]
    Length {
        /// The number of bytes found.
        has: u64,
        /// The number of bytes announced.
        says: u64,
    },
    /// The bytes differ from those that were written.
    #[error("its checksum is wrong")]
    Checksum,
    /// The file is complete, but its content is invalid.
    #[error("its content is invalid: {0}")]
    Invalid(String),
    /// The file is larger than [`MOST`].
    #[error("it is larger than {} MiB", MOST >> 20)]
    Size,
}

#[derive(Serialize, Deserialize)]
struct Header {
    proxymatic: String,
    version: u32,
    bytes: u64,
    crc32: String,
}

/// The part of the header that all versions share.
#[derive(Deserialize)]
struct Versioned {
    proxymatic: String,
    version: u64,
}

/// Returns the bytes of a file.
pub fn encode(state: &State) -> Result<Vec<u8>, Damage> {
    let invalid = |error: serde_json::Error| Damage::Invalid(error.to_string());
    let mut body = serde_json::to_vec(&Body::from(state)).map_err(invalid)?;
    body.push(b'\n');
    let crc32 = format!("{:08x}", crc32fast::hash(&body));
    let header = Header { proxymatic: KIND.into(), version: VERSION, bytes: body.len() as u64, crc32 };
    let mut file = serde_json::to_vec(&header).map_err(invalid)?;
    file.push(b'\n');
    file.append(&mut body);
    if file.len() as u64 > MOST { Err(Damage::Size) } else { Ok(file) }
}

/// Returns the state in the bytes of a file.
pub fn decode(file: &[u8]) -> Result<State, Damage> {
    if file.len() as u64 > MOST {
        return Err(Damage::Size);
    }
    let end = file.iter().take(LONGEST_HEADER).position(|byte| *byte == b'\n').ok_or(Damage::Foreign)?;
    let (header, body) = (&file[..end], &file[end + 1..]);
    let versioned: Versioned = serde_json::from_slice(header).map_err(|_| Damage::Foreign)?;
    if versioned.proxymatic != KIND {
        return Err(Damage::Foreign);
    }
    if versioned.version != u64::from(VERSION) {
        return Err(Damage::Version(versioned.version));
    }
    let header: Header = serde_json::from_slice(header).map_err(|_| Damage::Foreign)?;
    let has = body.len() as u64;
    if has != header.bytes {
        return Err(Damage::Length { has, says: header.bytes });
    }
    if header.crc32 != format!("{:08x}", crc32fast::hash(body)) {
        return Err(Damage::Checksum);
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| Damage::Invalid(error.to_string()))?;
    body.read().map_err(Damage::Invalid)
}

#[cfg(test)]
mod tests;
