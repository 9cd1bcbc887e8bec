//! The display of the parts of a write.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use proxymatic_common::{Backend, Features, Frontend, PROTOCOL_TCP, Service, SettingNumber, SourceRangeKey};

/// Returns the name of a service's protocol.
pub(super) const fn protocol(protocol: u8) -> &'static str {
    if protocol == PROTOCOL_TCP { "tcp" } else { "udp" }
}

/// Displays a backend.
pub(super) struct DisplayBackend<'a>(pub(super) &'a Backend);

impl fmt::Display for DisplayBackend<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Backend { address, port, state, weight, maxconn, local, .. } = self.0;
        let socket = SocketAddr::new(IpAddr::from(*address), port.get());
        write!(f, "{socket} {} weight {weight}", state.name())?;
        if *maxconn != 0 {
            write!(f, " maxconn {maxconn}")?;
        }
        if *local != 0 { f.write_str(" on this host") } else { Ok(()) }
    }
}

/// Displays the key of a service in `FRONTENDS`.
pub(super) struct DisplayFrontend<'a>(pub(super) &'a Frontend);

impl fmt::Display for DisplayFrontend<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} class {}", self.0.port.get(), protocol(self.0.protocol), self.0.class.0)
    }
}

/// Displays the network of a `SOURCE_RANGES` key.
pub(super) struct DisplayNetwork<'a>(pub(super) &'a SourceRangeKey);

impl fmt::Display for DisplayNetwork<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SourceRangeKey { prefix_len, network } = self.0;
        let before = if network.address.is_v4() { 32 + 96 } else { 32 };
        write!(f, "{}/{}", IpAddr::from(network.address), prefix_len.saturating_sub(before))
    }
}

/// Displays the settings of a service.
pub(super) struct DisplaySettings<'a>(pub(super) &'a Service);

impl fmt::Display for DisplaySettings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.0;
        f.write_str(service.policy.name())?;
        for SettingNumber { word, unit, value, .. } in service.numbers() {
            if value != 0 {
                write!(f, " {word} {value}{unit}")?;
            }
        }
        for (feature, _, words) in Features::all() {
            if service.features.has(feature) {
                write!(f, ", {words}")?;
            }
        }
        Ok(())
    }
}
