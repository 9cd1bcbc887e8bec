//! The position of a service port's bit in `PORTS`.

use crate::{PROTOCOL_TCP, PROTOCOL_UDP, Port};

/// The bit for a port and protocol in `PORTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortBit {
    /// The index of the word.
    pub word: u32,
    /// A word in which only this bit is set.
    pub mask: u64,
}

impl PortBit {
    /// Returns the bit for a port; `None` for a protocol that has no services.
    #[inline(always)]
    pub const fn of(port: Port, protocol: u8) -> Option<Self> {
        let base = match protocol {
            PROTOCOL_TCP => 0,
            PROTOCOL_UDP => 1024,
            _ => return None,
        };
        let port = port.get() as u32;
        Some(Self { word: base + (port >> 6), mask: 1 << (port & 63) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_and_protocol_has_its_own_bit() {
        let mut words = std::vec![0_u64; 2048];
        for protocol in [PROTOCOL_TCP, PROTOCOL_UDP] {
            for port in 0..=u16::MAX {
                let bit = PortBit::of(Port::new(port), protocol).unwrap();
                assert_eq!(words[bit.word as usize] & bit.mask, 0, "{port}/{protocol}");
                words[bit.word as usize] |= bit.mask;
            }
        }
        assert_eq!(PortBit::of(Port::new(80), 132), None);
    }
}
