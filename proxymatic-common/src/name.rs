//! Names of services and backends, so that the pinned maps alone are enough to identify them.

use crate::plain_bytes;

/// The name of a service (its Marathon app id) or of a backend (its Mesos task id), by id.
///
/// Hooks never read it. Task ids are directory names on Mesos agents and so have at most 255 bytes. A longer app id is
/// cut at the front, where apps differ least, and then begins with `..`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    length: u8,
    bytes: [u8; 255],
}

impl Name {
    /// Returns the name if it fits, else its end after `..`.
    #[cfg(any(test, feature = "user"))]
    pub fn truncate(name: &str) -> std::borrow::Cow<'_, str> {
        const MOST: usize = 255;
        if name.len() <= MOST {
            return name.into();
        }
        let mut start = name.len() - (MOST - 2);
        while !name.is_char_boundary(start) {
            start += 1;
        }
        std::format!("..{}", &name[start..]).into()
    }

    /// Makes an entry from a name.
    #[cfg(any(test, feature = "user"))]
    pub fn new(name: &str) -> Self {
        let name = Self::truncate(name);
        let mut bytes = [0; 255];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Self { length: name.len() as u8, bytes }
    }

    /// Returns the name. Bytes that are not UTF-8 become replacement characters, because a map can hold anything.
    #[cfg(any(test, feature = "user"))]
    pub fn to_text(&self) -> std::string::String {
        std::string::String::from_utf8_lossy(&self.bytes[..usize::from(self.length)]).into_owned()
    }
}

#[cfg(any(test, feature = "user"))]
impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_text().fmt(f)
    }
}

plain_bytes!(Name);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_round_trips_and_a_long_name_keeps_its_end() {
        assert_eq!(Name::new("/shop/web").to_text(), "/shop/web");
        assert_eq!(Name::new("").to_text(), "");
        let long = std::format!("{}/web", "ä".repeat(200));
        let name = Name::new(&long).to_text();
        assert!(name.starts_with("..ä") && name.ends_with("ä/web") && name.len() >= 253, "{name}");
    }
}
