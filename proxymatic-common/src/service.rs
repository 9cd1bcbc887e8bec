//! What a program dials, and how it is served.

use crate::{Port, assert_packed, plain_bytes};

/// A set of addresses that mean the same thing.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(pub u32);

impl Class {
    /// Every address of this host.
    pub const HOST: Self = Self(1);
}

/// IPPROTO_TCP.
pub const PROTOCOL_TCP: u8 = 6;

/// The key under which a service is found.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The class of the address that is dialled.
    pub class: Class,
    /// The service port.
    pub port: Port,
    /// IPPROTO number.
    pub protocol: u8,
    /// Always zero.
    pub zero: u8,
}
assert_packed!(Frontend = Class, Port, u8, u8);

impl Frontend {
    /// The key of a service on one class of addresses.
    #[inline(always)]
    pub const fn new(class: Class, port: Port, protocol: u8) -> Self {
        Self { class, port, protocol, zero: 0 }
    }
}

/// How a backend is chosen.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy(pub u32);

impl Policy {
    /// The less loaded of two drawn by weight.
    pub const LEASTCONN: Self = Self(0);
}

/// Who told us of a service.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceCode(pub u32);

impl SourceCode {
    /// Nobody: the id is free.
    pub const NONE: Self = Self(0);
    /// Marathon.
    pub const MARATHON: Self = Self(1);
    /// registrator, by way of etcd.
    pub const REGISTRATOR: Self = Self(2);
    /// A file on this host.
    pub const FILE: Self = Self(3);

    /// The word in what the commands show.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NONE => "none",
            Self::MARATHON => "marathon",
            Self::REGISTRATOR => "registrator",
            Self::FILE => "file",
            _ => "unknown",
        }
    }
}

/// The settings of a service, by id: what is read seldom or only by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// How a backend is chosen.
    pub policy: Policy,
    /// Who told us of it; [`SourceCode::NONE`] where the id is free.
    pub source: SourceCode,
}
assert_packed!(Service = Policy, SourceCode);

plain_bytes!(Class, Frontend, Policy, SourceCode, Service);
