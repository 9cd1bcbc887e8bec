//! Where the bit of a service port is.

use crate::{PROTOCOL_TCP, PROTOCOL_UDP, Port};

/// The bit of a port and protocol in `PORTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortBit {
    /// The index of its word.
    pub word: u32,
    /// The word with only this bit.
    pub mask: u64,
}

impl PortBit {
    /// Where the bit of a port is; `None` for protocols that have no services.
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
    fn every_port_of_each_protocol_has_a_bit_of_its_own() {
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
