//! The word that publishes a service, and the slots that it names.

use crate::plain_bytes;

/// The slots of a service: generation (16 bits), length (20) and base (28), in one word.
///
/// One aligned 64-bit store of this word replaces the whole set of backends of a service. A reader loads the word once,
/// so length and base always belong together.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotRange(u64);

impl SlotRange {
    /// The largest number of slots for a service.
    pub const MAX_LENGTH: u32 = (1 << 20) - 1;
    /// The highest slot index at which a range can begin.
    pub const MAX_BASE: u32 = (1 << 28) - 1;

    /// Makes a range of `length` slots from `base` on; `None` if a number does not fit its bits.
    pub const fn new(generation: u16, length: u32, base: u32) -> Option<Self> {
        if length > Self::MAX_LENGTH || base > Self::MAX_BASE {
            return None;
        }
        Some(Self((generation as u64) << 48 | (length as u64) << 28 | base as u64))
    }

    /// Makes a range from the word in the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// Returns the word for the map.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Returns how often this service has switched to another range, modulo 65,536.
    pub const fn generation(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Returns the number of slots; 0 for a service without backends.
    #[inline(always)]
    pub const fn length(self) -> u32 {
        (self.0 >> 28) as u32 & Self::MAX_LENGTH
    }

    /// Returns the index of the first slot.
    #[inline(always)]
    pub const fn base(self) -> u32 {
        self.0 as u32 & Self::MAX_BASE
    }
}

/// One entry of a policy's table: a backend's generation (upper 32 bits) and its id (lower 32 bits).
///
/// The slot was written for a backend of this generation. If the backend's current generation differs, the id has a new
/// owner and hooks skip the slot.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot(u64);

impl Slot {
    /// Makes a slot for one backend.
    pub const fn new(backend: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | backend as u64)
    }

    /// Makes a slot from the word in the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// Returns the word for the map.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Returns the backend's id.
    #[inline(always)]
    pub const fn backend(self) -> u32 {
        self.0 as u32
    }

    /// Returns the backend's generation at the time when the slot was written.
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
    fn slot_range_returns_the_numbers_it_was_made_from() {
        for (generation, length, base) in
            [(0, 0, 0), (65_535, SlotRange::MAX_LENGTH, SlotRange::MAX_BASE), (7, 3, 1_048_573)]
        {
            let range = SlotRange::new(generation, length, base).unwrap();
            assert_eq!((range.generation(), range.length(), range.base()), (generation, length, base));
            assert_eq!(SlotRange::from_word(range.word()), range);
        }
    }

    #[test]
    fn slot_range_beyond_its_bits_is_rejected() {
        assert_eq!(SlotRange::new(0, SlotRange::MAX_LENGTH + 1, 0), None);
        assert_eq!(SlotRange::new(0, 0, SlotRange::MAX_BASE + 1), None);
    }
}
