//! The bytes of the file: a line that says what follows and how to tell that it is whole, then the answers as JSON. Pure.
//!
//! Reading is total: bytes are either what some agent wrote, or [`Damage`].

use serde::{Deserialize, Serialize};

use super::{State, wire::Body};

/// The version of the format. A reader takes no other: what it does not know it could follow only in part.
pub const VERSION: u32 = 1;

/// The largest file, in bytes: some hundred times what the maps hold by default.
pub const MOST: u64 = 256 << 20;

/// What the first line says of itself.
const KIND: &str = "state";

/// The longest first line.
const LONGEST_HEADER: usize = 256;

/// Why bytes are not the state of an agent of this version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The first line is missing, or something else.
    #[error("it does not begin as a state file does")]
    Foreign,
    /// Another version wrote it.
    #[error("it is of version {0}, and this agent reads version {VERSION}")]
    Version(u64),
    /// It ends too early or too late.
    #[error("it has {has} bytes behind its first line, which says {says}")]
    Length {
        /// What was found.
        has: u64,
        /// What was written.
        says: u64,
    },
    /// The bytes are not those that were written.
    #[error("its checksum is wrong")]
    Checksum,
    /// It is whole, but does not make sense.
    #[error("it cannot be understood: {0}")]
    Nonsense(String),
    /// It is larger than [`MOST`].
    #[error("it is larger than {} MiB", MOST >> 20)]
    Size,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    proxymatic: String,
    version: u32,
    bytes: u64,
    crc32: String,
}

/// What all versions have in their first line.
#[derive(Deserialize)]
struct Versioned {
    proxymatic: String,
    version: u64,
}

/// The bytes of a file.
pub fn encode(state: &State) -> Result<Vec<u8>, Damage> {
    let nonsense = |error: serde_json::Error| Damage::Nonsense(error.to_string());
    let mut body = serde_json::to_vec(&Body::from(state)).map_err(nonsense)?;
    body.push(b'\n');
    let crc32 = format!("{:08x}", crc32fast::hash(&body));
    let header = Header { proxymatic: KIND.into(), version: VERSION, bytes: body.len() as u64, crc32 };
    let mut file = serde_json::to_vec(&header).map_err(nonsense)?;
    file.push(b'\n');
    file.append(&mut body);
    if file.len() as u64 > MOST { Err(Damage::Size) } else { Ok(file) }
}

/// What the bytes of a file say.
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
    let body: Body = serde_json::from_slice(body).map_err(|error| Damage::Nonsense(error.to_string()))?;
    body.read().map_err(Damage::Nonsense)
}

#[cfg(test)]
mod tests;
