//! The operator's rules about what apps may claim. An app that could claim any address would take connections to it from
//! every program of every host.

use std::collections::BTreeMap;

use ipnet::IpNet;

/// The operator's rules about claims of apps. The default permits no virtual address and no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRules {
    /// The networks in which virtual addresses of labels are served.
    pub vip_networks: Vec<IpNet>,
    /// Whether virtual addresses with a name are served, each at its port on every host.
    pub vip_names: bool,
    /// The number of ports and virtual addresses that one app or pod may have.
    pub max_ports_per_app: usize,
    /// Whether apps of any group may join the service of another app.
    pub share_anyone: bool,
    /// The app or pod that owns a service port, whatever else claims it.
    pub owners: BTreeMap<u16, String>,
    /// What no app may claim: addresses or names of hosts, and what each is, as in "the address of Marathon".
    pub protected: BTreeMap<String, String>,
}

impl ClaimRules {
    /// The default of [`ClaimRules::max_ports_per_app`].
    pub const MAX_PORTS_PER_APP: usize = 100;
}

impl Default for ClaimRules {
    fn default() -> Self {
        Self {
            vip_networks: Vec::new(),
            vip_names: false,
            max_ports_per_app: Self::MAX_PORTS_PER_APP,
            share_anyone: false,
            owners: BTreeMap::new(),
            protected: BTreeMap::new(),
        }
    }
}
