//! Reads the events of the hooks from the ring buffer.

use std::io;

use aya::maps::{Map, MapData, RingBuf};
use proxymatic_common::{
    Event, EventKind,
    maps::{Events as MapSpec, MapDef as _},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{Pins, pod::from_bytes};
use crate::dataplane::Error;

/// How many records are read at once at most, because the event loop has other work too.
const BATCH: usize = 256;

/// The only reader of `EVENTS`: the agent, which has the lock. Each record can be read once.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    /// Records that could not be decoded.
    unread: u64,
}

impl Events {
    /// Opens the pinned ring buffer. Needs a tokio runtime.
    ///
    /// # Errors
    /// Fails if the ring buffer is not pinned, or cannot be polled.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        let failed = |error: &dyn std::error::Error| Error::kernel(format!("open {}", MapSpec::NAME), error);
        let map = MapData::from_pin(pins.map(MapSpec::NAME)).map_err(|error| failed(&error))?;
        let ring = RingBuf::try_from(Map::RingBuf(map)).map_err(|error| failed(&error))?;
        // SAFETY: the ring owns its descriptor, and keeps that one for as long as it lives.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let ring = ring.map_err(|error| failed(&io::Error::from(error)))?;
        Ok(Self { ring, unread: 0 })
    }

    /// Waits for events and returns all that are there, in order.
    ///
    /// # Errors
    /// Fails if the ring buffer cannot be polled.
    pub async fn next(&mut self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        while events.is_empty() {
            let mut ready = self.ring.readable_mut().await?;
            let ring = ready.get_inner_mut();
            let mut read = 0;
            while read < BATCH
                && let Some(record) = ring.next()
            {
                read += 1;
                match decode(&record) {
                    Some(event) => events.push(event),
                    None => self.unread += 1,
                }
            }
            if read < BATCH {
                ready.clear_ready();
            }
        }
        Ok(events)
    }

    /// How many records could not be decoded.
    pub const fn unread(&self) -> u64 {
        self.unread
    }
}

/// Decodes a record; `None` if it is not one of this map ABI version.
fn decode(record: &[u8]) -> Option<Event> {
    let event: Event = from_bytes(record)?;
    (EventKind::REFUSED..=EventKind::BIND_REFUSED).contains(&event.kind).then_some(event)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A FAILED event, as the hooks write it.
    fn record() -> Vec<u8> {
        let mut record = Vec::new();
        record.extend(5_000_000_000_u64.to_ne_bytes());
        record.extend(42_u64.to_ne_bytes());
        for word in [2_u32, 15, 3, 7, 9, 4711, 1200, 1000] {
            record.extend(word.to_ne_bytes());
        }
        record.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
        record.extend([0x04, 0xd2, 6, 0, 0, 0, 0, 0]);
        record
    }

    #[test]
    fn record_is_decoded_field_by_field() {
        let event = decode(&record()).unwrap();
        assert_eq!((event.at, event.cgroup, event.kind), (5_000_000_000, 42, EventKind::FAILED));
        assert_eq!((event.reason, event.service, event.backend, event.generation), (15, 3, 7, 9));
        assert_eq!((event.pid, event.age_us, event.ejected_ms), (4711, 1200, 1000));
        assert_eq!(std::net::IpAddr::from(event.destination), std::net::IpAddr::from([10, 0, 0, 1]));
        assert_eq!((event.destination_port.get(), event.protocol), (1234, 6));
    }

    #[test]
    fn short_record_or_unknown_kind_is_no_event() {
        let record = record();
        assert_eq!(decode(&record[..record.len() - 1]), None);
        assert_eq!(decode(&[]), None);
        for kind in [0_u32, 7, u32::MAX] {
            let mut other = record.clone();
            other[16..20].copy_from_slice(&kind.to_ne_bytes());
            assert_eq!(decode(&other), None, "{kind}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode(&bytes);
        }
    }
}
