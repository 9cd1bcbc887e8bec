//! sock_diag messages as bytes, including the two requests that the netlink crates lack.

use std::os::fd::RawFd;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable as _, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, Parseable as _,
};
use netlink_packet_sock_diag::{
    SOCK_DESTROY, SOCK_DIAG_BY_FAMILY,
    inet::{InetRequest, InetResponse},
};

/// From linux/inet_diag.h.
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
/// From linux/sock_diag.h.
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;

/// A message to or from sock_diag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Requests the sockets of a family and a protocol, each with its value in a map if one is given.
    Dump(InetRequest, Option<RawFd>),
    /// Destroys one socket, as if its network had failed (SOCK_DESTROY).
    Destroy(InetRequest),
    /// One socket.
    Socket(Box<InetResponse>),
}

impl Message {
    fn storages(&self) -> Option<DefaultNla> {
        let Self::Dump(_, Some(map)) = self else { return None };
        let map = DefaultNla::new(SK_DIAG_BPF_STORAGE_REQ_MAP_FD, map.to_ne_bytes().to_vec());
        let mut nested = vec![0; map.buffer_len()];
        map.emit(&mut nested);
        Some(DefaultNla::new(INET_DIAG_REQ_SK_BPF_STORAGES, nested))
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        if matches!(self, Self::Destroy(_)) { SOCK_DESTROY } else { SOCK_DIAG_BY_FAMILY }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Dump(request, _) | Self::Destroy(request) => {
                request.buffer_len() + self.storages().map_or(0, |storages| storages.buffer_len())
            }
            Self::Socket(response) => response.buffer_len(),
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        match self {
            Self::Dump(request, _) | Self::Destroy(request) => {
                let (fixed, rest) = buffer.split_at_mut(request.buffer_len());
                request.emit(fixed);
                if let Some(storages) = self.storages() {
                    storages.emit(rest);
                }
            }
            Self::Socket(response) => response.emit(buffer),
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self::Socket(Box::new(InetResponse::parse(payload)?)))
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
    use netlink_packet_sock_diag::inet::{ExtensionFlags, SocketId, StateFlags};

    use super::*;

    fn bytes(message: Message, flags: u16) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = 1;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn request() -> InetRequest {
        InetRequest {
            family: 2,
            protocol: 6,
            extensions: ExtensionFlags::INFO,
            states: StateFlags::ESTABLISHED,
            socket_id: SocketId {
                source_port: 0x1234,
                destination_port: 80,
                source_address: [10, 0, 0, 1].into(),
                destination_address: [10, 0, 0, 2].into(),
                interface_id: 0,
                cookie: [1, 2, 3, 4, 5, 6, 7, 8],
            },
        }
    }

    #[test]
    fn dump_requests_the_storage_of_a_map_as_ss_does() {
        let bytes = bytes(Message::Dump(request(), Some(5)), NLM_F_REQUEST | NLM_F_DUMP);
        // nlmsghdr: 16 bytes; inet_diag_req_v2: 56; a nest of 12 with one attribute of 8.
        assert_eq!(bytes.len(), 84);
        assert_eq!(bytes[..8], [84, 0, 0, 0, 20, 0, 1, 3]);
        assert_eq!(bytes[16..24], [2, 6, 2, 0, 2, 0, 0, 0]);
        assert_eq!(bytes[24..28], [0x12, 0x34, 0, 80]);
        assert_eq!(bytes[72..], [12, 0, 2, 0, 8, 0, 1, 0, 5, 0, 0, 0]);
    }

    #[test]
    fn dump_without_a_map_requests_sockets_only() {
        let bytes = bytes(Message::Dump(request(), None), NLM_F_REQUEST | NLM_F_DUMP);
        assert_eq!(bytes.len(), 72);
        assert_eq!(bytes[4..8], [20, 0, 1, 3]);
    }

    #[test]
    fn destroy_identifies_a_socket_by_its_cookie() {
        let bytes = bytes(Message::Destroy(request()), NLM_F_REQUEST);
        assert_eq!(bytes.len(), 72);
        assert_eq!(bytes[4..6], [21, 0]);
        assert_eq!(bytes[64..], [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
