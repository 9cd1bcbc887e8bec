//! One service of the file. The keys of its settings are declared in `model/settings.rs`.

use std::{fmt, net::SocketAddr, num::NonZeroU16, sync::LazyLock};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, Visitor},
};

use super::host::Host;
use crate::model::{FileKey, GivenSettings, Weight, known_file_keys};

/// A service as the file has it.
pub(super) struct ServiceToml {
    pub(super) name: String,
    pub(super) port: Option<NonZeroU16>,
    pub(super) address: Option<SocketAddr>,
    pub(super) protocol: ProtocolToml,
    pub(super) settings: GivenSettings,
    pub(super) backends: Vec<BackendToml>,
}

/// A backend as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BackendToml {
    pub(super) address: Host,
    pub(super) port: NonZeroU16,
    #[serde(default)]
    pub(super) weight: WeightToml,
    #[serde(default)]
    pub(super) maxconn: u32,
}

/// A weight as the file has it.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(try_from = "u16")]
pub(super) struct WeightToml(pub(super) Weight);

impl TryFrom<u16> for WeightToml {
    type Error = String;

    fn try_from(number: u16) -> Result<Self, String> {
        Weight::new(number).map(Self).ok_or_else(|| format!("weight {number}: must be 0 to 1000"))
    }
}

/// The protocol of a service.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ProtocolToml {
    #[default]
    Tcp,
    Udp,
}

/// The keys of a service, for the text of an error.
static KEYS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let before = ["name", "port", "address", "protocol"];
    before.into_iter().chain(known_file_keys(None)).chain(["backends"]).collect()
});

enum Key {
    Name,
    Port,
    Address,
    Protocol,
    Backends,
    OfSettings(FileKey),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.as_str() {
            "name" => Self::Name,
            "port" => Self::Port,
            "address" => Self::Address,
            "protocol" => Self::Protocol,
            "backends" => Self::Backends,
            other => match FileKey::of(None, other) {
                Some(key) => Self::OfSettings(key),
                None => return Err(D::Error::unknown_field(other, &KEYS)),
            },
        })
    }
}

impl<'de> Deserialize<'de> for ServiceToml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("ServiceToml", &KEYS, ServiceVisitor)
    }
}

struct ServiceVisitor;

impl<'de> Visitor<'de> for ServiceVisitor {
    type Value = ServiceToml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("struct ServiceToml")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<ServiceToml, M::Error> {
        let (mut name, mut port, mut address, mut protocol, mut backends) = (None, None, None, None, None);
        let (mut settings, mut tables) = (GivenSettings::default(), Vec::new());
        while let Some(key) = map.next_key()? {
            match key {
                Key::Name => read_once(&mut name, "name", &mut map)?,
                Key::Port => read_once(&mut port, "port", &mut map)?,
                Key::Address => read_once(&mut address, "address", &mut map)?,
                Key::Protocol => read_once(&mut protocol, "protocol", &mut map)?,
                Key::Backends => read_once(&mut backends, "backends", &mut map)?,
                Key::OfSettings(FileKey::Setting(key)) => settings.read_from_file(key, &mut map)?,
                Key::OfSettings(FileKey::Table(table)) if tables.contains(&table) => {
                    return Err(M::Error::duplicate_field(table));
                }
                Key::OfSettings(FileKey::Table(table)) => {
                    tables.push(table);
                    map.next_value_seed(Table { name: table, settings: &mut settings })?;
                }
            }
        }
        Ok(ServiceToml {
            name: name.ok_or_else(|| M::Error::missing_field("name"))?,
            port: port.flatten(),
            address: address.flatten(),
            protocol: protocol.unwrap_or_default(),
            settings,
            backends: backends.ok_or_else(|| M::Error::missing_field("backends"))?,
        })
    }
}

fn read_once<'de, T: Deserialize<'de>, M: MapAccess<'de>>(
    place: &mut Option<T>,
    key: &'static str,
    map: &mut M,
) -> Result<(), M::Error> {
    if place.is_some() {
        return Err(M::Error::duplicate_field(key));
    }
    *place = Some(map.next_value()?);
    Ok(())
}

/// A table of settings, such as `timeout`.
struct Table<'a> {
    name: &'static str,
    settings: &'a mut GivenSettings,
}

impl<'de> DeserializeSeed<'de> for Table<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Table<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of settings")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key_seed(TableKey(self.name))? {
            self.settings.read_from_file(key, &mut map)?;
        }
        Ok(())
    }
}

/// A key of a table of settings.
struct TableKey(&'static str);

impl<'de> DeserializeSeed<'de> for TableKey {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        let text = String::deserialize(deserializer)?;
        match FileKey::of(Some(self.0), &text) {
            Some(FileKey::Setting(key)) => Ok(key),
            _ => {
                let known = known_file_keys(Some(self.0)).iter().map(|key| format!("`{key}`")).collect::<Vec<_>>();
                Err(D::Error::custom(format!("unknown field `{text}`, expected one of {}", known.join(", "))))
            }
        }
    }
}
