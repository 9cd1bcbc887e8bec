//! Names, so that the pins alone can say whose they are.

use crate::plain_bytes;

/// The name of a service (its Marathon app id) or of a backend (its Mesos task id), by id.
///
/// The hooks never read it. Task ids are directory names on Mesos agents and so at most 255 bytes; a longer app id is
/// cut at the front, where apps differ least, and begins with `..` then.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    length: u8,
    bytes: [u8; 255],
}

impl Name {
    /// A name as it can be held: itself, or its end behind `..`.
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

    /// Holds a name.
    #[cfg(any(test, feature = "user"))]
    pub fn new(name: &str) -> Self {
        let name = Self::truncate(name);
        let mut bytes = [0; 255];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Self { length: name.len() as u8, bytes }
    }

    /// The name. Bytes that are not text are shown as replacement characters: a map can hold anything.
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
    fn a_name_comes_back_and_a_long_one_keeps_its_end() {
        assert_eq!(Name::new("/shop/web").to_text(), "/shop/web");
        assert_eq!(Name::new("").to_text(), "");
        let long = std::format!("{}/web", "ä".repeat(200));
        let name = Name::new(&long).to_text();
        assert!(name.starts_with("..ä") && name.ends_with("ä/web") && name.len() >= 253, "{name}");
    }
}
