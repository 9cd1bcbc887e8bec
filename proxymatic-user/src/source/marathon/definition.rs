//! One version of an app's definition: its ports with their labels.

use super::{
    api::App,
    claim::{PortClaim, ServiceClaim, service_keys},
    claim_check::{ClaimCheck, PortVips},
    lookups::Options,
    ports::{self, Port, Served},
};
use crate::model::{Labels, PREFIX};

/// One version of an app's definition.
pub(super) struct Definition<'a> {
    /// The ports, in order of index; `None` if the definition does not determine them.
    pub(super) ports: Option<Vec<Port<'a>>>,
    /// The values of the labels.
    pub(super) labels: Labels,
    /// The virtual addresses of each port.
    vips: Vec<PortVips<'a>>,
    /// Whether the app has health checks.
    pub(super) checked: bool,
    /// What is wrong with the definition, one sentence each.
    pub(super) warnings: Vec<String>,
}

impl<'a> Definition<'a> {
    pub(super) fn new(app: &'a App, options: &Options, claims: &ClaimCheck<'_>) -> Self {
        let mut warnings = Vec::new();
        let ports = ports::ports_of(app).map_err(|reason| warnings.push(reason)).ok();
        let (mut labels, mut vips, mut claims) = (Labels::default(), Vec::new(), claims.app());
        for (index, port) in ports.iter().flatten().enumerate() {
            let all = port.labels;
            let own = || all.iter().map(|(label, value)| (label.as_str(), value.as_str()));
            labels.of_port(index, own(), options.group_size);
            let (port_vips, wrong) = claims.next_port(own());
            vips.push(port_vips);
            warnings.extend(wrong.into_iter().map(|it| format!("port {index}, {it}")));
        }
        warnings.extend(claims.finish());
        let app_labels = app.labels.iter().map(|(label, value)| (label.as_str(), value.as_str()));
        labels.of_app(app_labels, vips.len(), options.group_size);
        if ports.is_some() {
            warnings.append(&mut labels.warnings);
        }
        let definition = Self { ports, labels, vips, checked: !app.health_checks.is_empty(), warnings };
        definition.with_port_warnings()
    }

    fn with_port_warnings(mut self) -> Self {
        for (index, port) in self.ports.iter().flatten().enumerate() {
            if self.service_port(index).is_none() && !self.vips[index].named {
                let remedy = format!("set one there, or with the label {PREFIX}{index}.servicePort");
                self.warnings.push(match port.service_port {
                    0 => format!("port {index} has no service port, so it cannot be connected to; {remedy}"),
                    other => {
                        format!("port {index} has the service port {other}, which cannot be connected to; {remedy}")
                    }
                });
            }
            if port.protocols.is_empty() {
                let protocol = port.protocol;
                self.warnings.push(format!("port {index} has the protocol {protocol:?}; only tcp and udp are known"));
            }
        }
        self
    }

    /// Returns the service port of the port of this index: by label, else as Marathon assigned it; `None` if it has none.
    fn service_port(&self, index: usize) -> Option<u16> {
        let assigned = || u16::try_from(self.ports.as_ref()?.get(index)?.service_port).ok().filter(|port| *port > 0);
        self.labels.port(index).service_port.or_else(assigned)
    }

    /// Returns the services that the port of this index claims for an app.
    pub(super) fn claims(&self, app: &'a str, index: usize) -> Vec<ServiceClaim<'a>> {
        let Some(port) = self.ports.as_deref().and_then(|ports| ports.get(index)) else { return Vec::new() };
        let PortVips { vips, fits: true, .. } = &self.vips[index] else { return Vec::new() };
        let number = self.service_port(index);
        let by_label = self.labels.port(index).service_port.is_some();
        let is_assigned = number.is_some_and(|number| i64::from(number) == port.service_port);
        let on_its_hosts =
            port.served == Served::OnHost && number.is_some_and(|number| i64::from(number) == port.fixed);
        service_keys(number, vips, port.protocols, PortClaim { app, by_label, is_assigned, on_its_hosts })
    }
}
