//! The bytes of a value of a map, as the value that they are.

/// The value that these bytes begin with; `None` where they are too few. Longer ones are of a later version, which only
/// adds at the end.
pub fn from_bytes<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    let enough = bytes.len() >= size_of::<T>();
    // SAFETY: so many bytes are there, and any bytes are a value of a type that is Pod.
    enough.then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use proxymatic_common::{Socket, Translation};

    use super::*;

    #[test]
    fn too_few_bytes_are_no_value_and_more_than_enough_are_one() {
        let mut bytes = vec![0; size_of::<Socket>() + 1];
        bytes[8] = 7;
        assert_eq!(from_bytes::<Socket>(&bytes[..size_of::<Socket>() - 1]), None);
        assert_eq!(from_bytes::<Socket>(&[]), None);
        let socket: Socket = from_bytes(&bytes).unwrap();
        assert_eq!((socket.newest, socket.ring[0]), (7, Translation::NONE));
    }
}
