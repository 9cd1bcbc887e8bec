//! One version of an app's definition: its ports with the labels that belong to them.

use std::num::NonZeroU32;

use super::{
    ports::{self, Port},
    wire::App,
};
use crate::model::{Labels, PREFIX};

/// One version of an app's definition.
pub(super) struct Definition<'a> {
    /// Its ports, in order of index; `None` where the definition does not let one know.
    pub(super) ports: Option<Vec<Port>>,
    /// What its labels ask.
    pub(super) labels: Labels,
    /// Whether it has health checks.
    pub(super) checked: bool,
    /// What is wrong with it, one sentence each.
    pub(super) complaints: Vec<String>,
    app: &'a App,
}

impl<'a> Definition<'a> {
    pub(super) fn new(app: &'a App, group_size: NonZeroU32) -> Self {
        let mut complaints = Vec::new();
        let ports = ports::of(app).map_err(|reason| complaints.push(reason)).ok();
        let count = ports.as_ref().map_or(0, Vec::len);
        let labels = app.labels.iter().map(|(label, value)| (label.as_str(), value.as_str()));
        let mut labels = Labels::read(labels, count, group_size);
        if ports.is_some() {
            complaints.append(&mut labels.complaints);
        }
        let definition = Self { ports, labels, checked: !app.health_checks.is_empty(), complaints, app };
        definition.with_complaints_about_ports()
    }

    fn with_complaints_about_ports(mut self) -> Self {
        for (index, port) in self.ports.iter().flatten().enumerate() {
            if self.service_port(index).is_none() {
                let remedy = format!("set one there, or with the label {PREFIX}{index}.servicePort");
                self.complaints.push(match port.service_port {
                    0 => format!("port {index} has no service port, so it cannot be dialled; {remedy}"),
                    other => format!("port {index} has the service port {other}, which cannot be dialled; {remedy}"),
                });
            }
            if port.protocols.is_empty() {
                let protocol = self.protocol(index);
                self.complaints
                    .push(format!("port {index} is of the protocol {protocol:?}; only tcp and udp are known"));
            }
        }
        self
    }

    /// The service port of the port of this index: by label, else as Marathon assigned it; `None` if it has none.
    pub(super) fn service_port(&self, index: usize) -> Option<u16> {
        let assigned = || u16::try_from(self.ports.as_ref()?.get(index)?.service_port).ok().filter(|port| *port > 0);
        self.labels.port(index).service_port.or_else(assigned)
    }

    fn protocol(&self, index: usize) -> &str {
        let mapping = self.app.container.port_mappings.get(index).map(|it| it.protocol.as_str());
        let definition = || self.app.port_definitions.get(index).map(|it| it.protocol.as_str());
        mapping.or_else(definition).unwrap_or_default()
    }
}
