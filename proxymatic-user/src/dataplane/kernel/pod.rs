//! Converts the bytes of a map value to its type.

/// Converts bytes to a value; `None` if there are too few. Ignores excess bytes: a later version adds fields at the
/// end.
pub fn from_bytes<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    let enough = bytes.len() >= size_of::<T>();
    // SAFETY: there are enough bytes, and any bytes are a value of a Pod type.
    enough.then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use proxymatic_common::{Socket, Translation};

    use super::*;

    #[test]
    fn short_bytes_are_no_value_and_excess_bytes_are_ignored() {
        let mut bytes = vec![0; size_of::<Socket>() + 1];
        bytes[8] = 7;
        assert_eq!(from_bytes::<Socket>(&bytes[..size_of::<Socket>() - 1]), None);
        assert_eq!(from_bytes::<Socket>(&[]), None);
        let socket: Socket = from_bytes(&bytes).unwrap();
        assert_eq!((socket.newest, socket.ring[0]), (7, Translation::NONE));
    }
}
