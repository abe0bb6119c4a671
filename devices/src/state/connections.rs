//! The guest's TCP connections, which end when the state is resumed.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use crate::connections::{Connection, Connections, Ends, MOST};
use crate::pc::Pc;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// Those that are not understood are left out: their guest finds out when it sends.
pub(super) type Saved = BTreeMap<Ends, Connection>;

const KEY: &str = "tcp_connections";

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let list = state.ours(KEY).as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(list.iter().filter_map(connection).take(MOST).collect())
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        machine.connections = Connections::of_state(self);
    }

    fn write<'m>(machine: &'m Pc, writer: &mut Writer<'_, 'm>) -> Result<(), StateError> {
        let list: BTreeMap<_, _> = machine.connections.open().collect();
        if !list.is_empty() {
            writer.add(KEY, list.into_iter().map(|(ends, connection)| entry(ends, connection)).collect());
        }
        Ok(())
    }
}

/// Both ends as text, both Ethernet addresses, and both numbers.
fn entry(ends: &Ends, connection: &Connection) -> Json {
    let Connection { guest_mac, remote_mac, expected, next, .. } = connection;
    json!([ends.guest.to_string(), ends.remote.to_string(), guest_mac, remote_mac, expected, next])
}

fn connection(saved: &Json) -> Option<(Ends, Connection)> {
    let end = |at: usize| saved[at].as_str()?.parse().ok();
    let mac = |at: usize| -> Option<[u8; 6]> { serde_json::from_value(saved[at].clone()).ok() };
    let number = |at: usize| u32::try_from(saved[at].as_u64()?).ok();
    let ends = Ends { guest: end(0)?, remote: end(1)? };
    Some((ends, Connection::new(mac(2)?, mac(3)?, number(4)?, number(5)?)))
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Random, Suite, any, fields};
    use super::*;
    use core::net::SocketAddr;

    fn some(random: &mut Random) -> Saved {
        let end = |random: &mut Random| SocketAddr::new(any::<[u8; 4]>(random).into(), any(random));
        let ends = |random: &mut Random| Ends { guest: end(random), remote: end(random) };
        let connection =
            |random: &mut Random| Connection::new(any(random), any(random), any(random), any(random));
        (0..=random.below(5)).map(|_| (ends(random), connection(random))).collect()
    }

    impl Suite for Saved {
        fn fields() -> Vec<Field> {
            fields!(m: m.connections.lost => some)
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.connections.lost)
        }
    }
}
