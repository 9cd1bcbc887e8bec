//! Labels for a service as a whole, in contrast to one app's share in it.

use std::{collections::BTreeSet, time::Duration};

use crate::model::{AllowRule, CONNECT, Policy, Settings, duration};

/// The values of one port's labels for its service; `None` for a label that is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceLabels {
    balance: Option<Policy>,
    connect: Option<Duration>,
    client: Option<Duration>,
    server: Option<Duration>,
    affinity: Option<Duration>,
    allow: Option<BTreeSet<AllowRule>>,
    reset: Option<bool>,
    expose: Option<bool>,
}

impl ServiceLabels {
    /// Applies one label, or returns the reason why not.
    pub(super) fn apply(&mut self, key: &str, value: &str) -> Result<(), String> {
        let wrong = |must: &str| format!("must be {must}; it is left out");
        let time = || duration(value).filter(|time| !time.is_zero());
        let long = "a duration above 0 such as 500ms, 30s or 5m";
        match key {
            "balance" => self.balance = Some(value.parse().map_err(|must| format!("{must}; it is left out"))?),
            "timeout.connect" => self.connect = Some(time().ok_or_else(|| wrong(long))?),
            "timeout.client" => self.client = Some(time().ok_or_else(|| wrong(long))?),
            "timeout.server" => self.server = Some(time().ok_or_else(|| wrong(long))?),
            "affinity" => {
                let time = duration(value).ok_or_else(|| wrong("a duration such as 30s or 5m, or 0 for none"))?;
                self.affinity = Some(time);
            }
            "allow" => return self.apply_allow(value),
            "on-backend-removed" => match value {
                "keep" | "reset" => self.reset = Some(value == "reset"),
                _ => return Err(wrong("keep or reset")),
            },
            "expose" => self.expose = Some(value.parse().map_err(|_| wrong("true or false"))?),
            _ => return Err("is unknown".into()),
        }
        Ok(())
    }

    /// Parses an allow list. A list with an invalid entry remains a list, because a slip must not open the service: the
    /// invalid entry allows no client.
    fn apply_allow(&mut self, value: &str) -> Result<(), String> {
        let list = self.allow.insert(BTreeSet::new());
        let mut wrong = Vec::new();
        for part in value.split(',').map(str::trim) {
            match part.parse() {
                Ok(allowed) => {
                    list.insert(allowed);
                }
                Err(must) => wrong.push(format!("{part:?} {must}; the entry allows no client")),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// Takes the values that this one lacks from `other`. Returns the keys with two different values; the own value
    /// stays.
    pub fn merge(&mut self, other: &Self) -> Vec<&'static str> {
        fn take<T: Clone + PartialEq>(
            own: &mut Option<T>,
            other: &Option<T>,
            key: &'static str,
            differ: &mut Vec<&'static str>,
        ) {
            match (own.as_ref(), other) {
                (None, _) => own.clone_from(other),
                (Some(own), Some(other)) if own != other => differ.push(key),
                _ => {}
            }
        }
        let Self { balance, connect, client, server, affinity, allow, reset, expose } = self;
        let mut differ = Vec::new();
        take(balance, &other.balance, "balance", &mut differ);
        take(connect, &other.connect, "timeout.connect", &mut differ);
        take(client, &other.client, "timeout.client", &mut differ);
        take(server, &other.server, "timeout.server", &mut differ);
        take(affinity, &other.affinity, "affinity", &mut differ);
        take(allow, &other.allow, "allow", &mut differ);
        take(reset, &other.reset, "on-backend-removed", &mut differ);
        take(expose, &other.expose, "expose", &mut differ);
        differ
    }

    /// Returns the settings of the service.
    pub fn settings(self) -> Settings {
        Settings {
            policy: self.balance.unwrap_or_default(),
            maxconn: None,
            connect: self.connect.unwrap_or(CONNECT),
            client: self.client,
            server: self.server,
            affinity: self.affinity.unwrap_or_default(),
            allow: self.allow,
            reset: self.reset.unwrap_or_default(),
            expose: self.expose.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> ServiceLabels {
        let mut labels = ServiceLabels::default();
        for (key, value) in pairs {
            labels.apply(key, value).unwrap();
        }
        labels
    }

    #[test]
    fn label_applies_and_a_bad_value_is_explained() {
        let s = Duration::from_secs;
        let is = Settings::default;
        let reset = Settings { reset: true, ..is() };
        let allow = ["10.0.0.0/8", "192.0.2.7", "cgroup:/mesos"].map(|text| text.parse().unwrap());
        for (key, good, settings, bad) in [
            ("balance", "maglev", Settings { policy: Policy::Maglev, ..is() }, "leastcon"),
            ("timeout.connect", "250ms", Settings { connect: Duration::from_millis(250), ..is() }, "-1s"),
            ("timeout.client", "30s", Settings { client: Some(s(30)), ..is() }, "soon"),
            ("timeout.server", "5m", Settings { server: Some(s(300)), ..is() }, "0"),
            ("affinity", "30m", Settings { affinity: s(1800), ..is() }, "client"),
            ("affinity", "0", is(), ""),
            ("allow", "10.1.0.0/8, 192.0.2.7,cgroup:/mesos", Settings { allow: Some(allow.into()), ..is() }, "db"),
            ("on-backend-removed", "reset", reset, "drop"),
            ("on-backend-removed", "keep", is(), "true"),
            ("expose", "true", Settings { expose: true, ..is() }, "yes"),
        ] {
            assert_eq!(labels(&[(key, good)]).settings(), settings, "{key}={good}");
            let says = ServiceLabels::default().apply(key, bad).unwrap_err();
            assert!(says.contains("must be "), "{key}={bad}: {says}");
        }
        for policy in Policy::ALL {
            assert_eq!(labels(&[("balance", &policy.to_string())]).settings().policy, policy);
        }
        assert_eq!(labels(&[]).settings(), Settings::default());
    }

    #[test]
    fn allow_list_with_an_invalid_entry_stays_a_list() {
        for (value, left) in [("10.0.0.0/8,10.0.0.0/33", 1), ("10.0.0.0/33", 0), ("", 0)] {
            let mut labels = ServiceLabels::default();
            assert!(labels.apply("allow", value).unwrap_err().contains("the entry allows no client"));
            assert_eq!(labels.settings().allow.unwrap().len(), left, "{value}");
        }
    }

    #[test]
    fn merge_takes_missing_values_and_reports_conflicts() {
        let mut first = labels(&[("balance", "random"), ("affinity", "1m"), ("expose", "true")]);
        let second = labels(&[("balance", "maglev"), ("affinity", "60s"), ("allow", "10.0.0.0/8")]);
        assert_eq!(first.merge(&second), ["balance"]);
        let all = [("balance", "random"), ("affinity", "1m"), ("expose", "true"), ("allow", "10.0.0.0/8")];
        assert_eq!(first, labels(&all));
    }
}
