//! One version of an app's definition: its ports with the labels that belong to them.

use super::{
    api::App,
    convert::Options,
    ports::{self, Port},
};
use crate::model::{Labels, PREFIX, Vip};

/// One version of an app's definition.
pub(super) struct Definition<'a> {
    /// Its ports, in order of index; `None` where the definition does not let one know.
    pub(super) ports: Option<Vec<Port<'a>>>,
    /// What its labels ask.
    pub(super) labels: Labels,
    /// The virtual addresses of each port.
    pub(super) vips: Vec<Vec<Vip<'a>>>,
    /// Whether it has health checks.
    pub(super) checked: bool,
    /// What is wrong with it, one sentence each.
    pub(super) warnings: Vec<String>,
}

impl<'a> Definition<'a> {
    pub(super) fn new(app: &'a App, rules: Options) -> Self {
        let mut warnings = Vec::new();
        let ports = ports::of(app).map_err(|reason| warnings.push(reason)).ok();
        let (mut labels, mut vips) = (Labels::default(), Vec::new());
        for (index, port) in ports.iter().flatten().enumerate() {
            let all = port.labels;
            let own = || all.iter().map(|(label, value)| (label.as_str(), value.as_str()));
            labels.of_port(index, own(), rules.group_size);
            let (of_port, wrong) = Vip::read(own());
            vips.push(of_port);
            warnings.extend(wrong.into_iter().map(|it| format!("port {index}, {it}")));
        }
        let of_app = app.labels.iter().map(|(label, value)| (label.as_str(), value.as_str()));
        labels.of_app(of_app, vips.len(), rules.group_size);
        if ports.is_some() {
            warnings.append(&mut labels.warnings);
        }
        let definition = Self { ports, labels, vips, checked: !app.health_checks.is_empty(), warnings };
        definition.with_port_warnings()
    }

    fn with_port_warnings(mut self) -> Self {
        for (index, port) in self.ports.iter().flatten().enumerate() {
            if self.service_port(index).is_none() && self.vips[index].is_empty() {
                let remedy = format!("set one there, or with the label {PREFIX}{index}.servicePort");
                self.warnings.push(match port.service_port {
                    0 => format!("port {index} has no service port, so it cannot be dialled; {remedy}"),
                    other => format!("port {index} has the service port {other}, which cannot be dialled; {remedy}"),
                });
            }
            if port.protocols.is_empty() {
                let protocol = port.protocol;
                self.warnings.push(format!("port {index} is of the protocol {protocol:?}; only tcp and udp are known"));
            }
        }
        self
    }

    /// The service port of the port of this index: by label, else as Marathon assigned it; `None` if it has none.
    pub(super) fn service_port(&self, index: usize) -> Option<u16> {
        let assigned = || u16::try_from(self.ports.as_ref()?.get(index)?.service_port).ok().filter(|port| *port > 0);
        self.labels.port(index).service_port.or_else(assigned)
    }
}
