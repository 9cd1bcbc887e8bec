//! The word that publishes a service, and the words it points at.

use crate::plain_bytes;

/// Where a service's slots are: generation (16 bits), length (20), base (28), in one word.
///
/// One aligned 64-bit store of this word replaces the whole set of backends of a service. A reader takes it once, so
/// that length and base always belong together.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotRange(u64);

impl SlotRange {
    /// The most slots a service can have.
    pub const MAX_LENGTH: u32 = (1 << 20) - 1;
    /// The last slot that a head can name.
    pub const MAX_BASE: u32 = (1 << 28) - 1;

    /// A head over `length` slots from `base` on; `None` where one does not fit its bits.
    pub const fn new(generation: u16, length: u32, base: u32) -> Option<Self> {
        if length > Self::MAX_LENGTH || base > Self::MAX_BASE {
            return None;
        }
        Some(Self((generation as u64) << 48 | (length as u64) << 28 | base as u64))
    }

    /// From the word in the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word in the map.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Counts the switches of this service, modulo 65,536.
    pub const fn generation(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// How many slots there are; 0 for a service without backends.
    #[inline(always)]
    pub const fn length(self) -> u32 {
        (self.0 >> 28) as u32 & Self::MAX_LENGTH
    }

    /// The index of the first slot.
    #[inline(always)]
    pub const fn base(self) -> u32 {
        self.0 as u32 & Self::MAX_BASE
    }
}

/// One draw for one backend: its generation (upper 32 bits) and its id.
///
/// The generation is that of the backend the slot was written for; where the backend's own differs, the id has a new
/// owner and the slot is not to be followed.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot(u64);

impl Slot {
    /// A slot for one backend.
    pub const fn new(backend: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | backend as u64)
    }

    /// From the word in the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word in the map.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The backend's id.
    #[inline(always)]
    pub const fn backend(self) -> u32 {
        self.0 as u32
    }

    /// The generation of the backend the slot was written for.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

plain_bytes!(SlotRange, Slot);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_gives_back_what_it_was_made_of() {
        for (generation, length, base) in
            [(0, 0, 0), (65_535, SlotRange::MAX_LENGTH, SlotRange::MAX_BASE), (7, 3, 1_048_573)]
        {
            let head = SlotRange::new(generation, length, base).unwrap();
            assert_eq!((head.generation(), head.length(), head.base()), (generation, length, base));
            assert_eq!(SlotRange::from_word(head.word()), head);
        }
    }

    #[test]
    fn a_head_that_does_not_fit_is_refused() {
        assert_eq!(SlotRange::new(0, SlotRange::MAX_LENGTH + 1, 0), None);
        assert_eq!(SlotRange::new(0, 0, SlotRange::MAX_BASE + 1), None);
    }
}
