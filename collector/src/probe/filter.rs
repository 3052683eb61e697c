//! The rules that the kernel decides by: what was compiled of them goes into its maps, what it left out comes back as counts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aya::Ebpf;
use aya::maps::{Array, HashMap as Table, MapData, MapError, PerCpuHashMap};
use whence_abi::filter::{self, Active, Connection, Filtered, Known, Profile, Rule};
use whence_abi::record::Plain as _;
use whence_model::Principal;

use super::ProbeError;
use super::maps::{Bytes, bytes, map_error, remove, typed};
use crate::policy::{Policy, kernel};

const ACTIVE: usize = size_of::<Active>();
const RULE: usize = size_of::<Rule>();
const PROFILE: usize = size_of::<Profile>();
const CONNECTION: usize = size_of::<Connection>();
const KNOWN: usize = size_of::<Known>();
const FILTERED: usize = size_of::<Filtered>();
const ONLY_NEW: u64 = 1; // BPF_NOEXIST

pub struct Filters {
    active: Array<MapData, Bytes<ACTIVE>>,
    rules: Array<MapData, Bytes<RULE>>,
    profiles: Array<MapData, Bytes<PROFILE>>,
    connections: Table<MapData, Bytes<CONNECTION>, Bytes<KNOWN>>,
    filtered: PerCpuHashMap<MapData, Bytes<FILTERED>, u64>,
    generation: u32,
    /// Profiles of this generation, by the answers that they are for.
    known: HashMap<kernel::Answers, u32>,
    /// The connection that was told of last: what it had sent before the kernel knew comes in one go.
    told: Option<(u32, u64)>,
}

impl Filters {
    /// Takes the maps out of `bpf`. Until [`Filters::hold`] the kernel goes on by the rules that it has.
    pub fn take(bpf: &mut Ebpf) -> Result<Self, ProbeError> {
        let mut map = |name: &'static str| bpf.take_map(name).ok_or(ProbeError::Incomplete(name));
        Ok(Self {
            active: typed("ACTIVE", map("ACTIVE")?)?,
            rules: typed("RULES", map("RULES")?)?,
            profiles: typed("PROFILES", map("PROFILES")?)?,
            connections: typed("CONNECTIONS", map("CONNECTIONS")?)?,
            filtered: typed("FILTERED", map("FILTERED")?)?,
            generation: 0,
            known: HashMap::new(),
            told: None,
        })
    }

    /// From now on the kernel decides by these rules. The places of those before them are left alone, as a program may
    /// just be looking at them.
    pub fn hold(&mut self, policy: &Policy) -> Result<(), ProbeError> {
        let before = self.active.get(&0, 0).map_err(map_error("ACTIVE"))?;
        let before = Active::split_from(&before).map(|(active, _)| active).unwrap_or_default();
        self.generation = before.generation.wrapping_add(1);
        self.set_active(Active { on: 0, generation: self.generation, ..Active::default() })?;
        self.forget_connections(|_, known| known.profile != Known::CHANGED)?;
        for (place, rule) in (u32::from(self.first_rule())..).zip(policy.kernel_rules()) {
            self.rules.set(place, bytes(&rule), 0).map_err(map_error("RULES"))?;
        }
        let profile = policy.profile(None, self.first_rule());
        self.profiles.set(self.first_profile(), bytes(&profile), 0).map_err(map_error("PROFILES"))?;
        let on = u32::from(profile != Profile::EMPTY);
        let profile = self.first_profile();
        self.set_active(Active { on, generation: self.generation, profile, reserved: 0 })
    }

    fn set_active(&mut self, active: Active) -> Result<(), ProbeError> {
        self.active.set(0, bytes(&active), 0).map_err(map_error("ACTIVE"))
    }

    fn first_rule(&self) -> u8 {
        if self.generation.is_multiple_of(2) { 1 } else { 128 }
    }

    fn first_profile(&self) -> u32 {
        (self.generation % 2) * filter::PROFILES
    }

    /// Tells the kernel who a connection belongs to, as the rules ask. It keeps what it knows already.
    pub fn tell(
        &mut self,
        policy: &Policy,
        tgid: u32,
        id: u64,
        principal: &Principal,
    ) -> Result<(), ProbeError> {
        if self.told == Some((tgid, id)) {
            return Ok(());
        }
        self.told = Some((tgid, id));
        let answers = policy.answers(principal);
        if answers.is_empty() {
            return Ok(());
        }
        let Some(profile) = self.profile_of(policy, answers)? else { return Ok(()) };
        let connection = bytes(&Connection { id, tgid, reserved: 0 });
        let known = bytes(&Known { generation: self.generation, profile });
        match self.connections.insert(connection, known, ONLY_NEW) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {
                Ok(())
            }
            other => other.map_err(map_error("CONNECTIONS")),
        }
    }

    /// The place of the profile of connections that answer so; None when there is no room for more.
    fn profile_of(&mut self, policy: &Policy, answers: kernel::Answers) -> Result<Option<u32>, ProbeError> {
        if let Some(place) = self.known.get(&answers) {
            return Ok(Some(*place));
        }
        // The first is that of unknown connections.
        let number = u32::try_from(self.known.len()).unwrap_or(u32::MAX).saturating_add(1);
        if number >= filter::PROFILES {
            return Ok(None);
        }
        let place = self.first_profile() + number;
        let profile = policy.profile(Some(&answers), self.first_rule());
        self.profiles.set(place, bytes(&profile), 0).map_err(map_error("PROFILES"))?;
        self.known.insert(answers, place);
        Ok(Some(place))
    }

    /// How many events of process `tgid` were left out so far, by the name of the rule, over all CPUs.
    pub fn filtered(&self, tgid: u32) -> Result<BTreeMap<String, u64>, ProbeError> {
        let mut counts = BTreeMap::new();
        for key in self.keys_of(tgid) {
            let Some((place, _)) = Filtered::split_from(&key) else { continue };
            match self.filtered.get(&key, 0) {
                Ok(values) => _ = counts.insert(kernel::name(&place.rule), values.iter().sum()),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(map_error("FILTERED")(error)),
            }
        }
        Ok(counts)
    }

    /// The processes of which events were left out.
    pub fn processes(&self) -> BTreeSet<u32> {
        let keys = self.filtered.keys().filter_map(Result::ok);
        keys.filter_map(|key| Filtered::split_from(&key).map(|(key, _)| key.tgid)).collect()
    }

    fn keys_of(&self, tgid: u32) -> Vec<Bytes<FILTERED>> {
        let is_of =
            |key: &Bytes<FILTERED>| Filtered::split_from(key).is_some_and(|(key, _)| key.tgid == tgid);
        self.filtered.keys().filter_map(Result::ok).filter(is_of).collect()
    }

    /// Removes all that is kept of process `tgid`.
    pub fn forget_process(&mut self, tgid: u32) -> Result<(), ProbeError> {
        for key in self.keys_of(tgid) {
            match self.filtered.remove(&key) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(map_error("FILTERED")(error)),
            }
        }
        self.forget_connections(|connection, _| connection.tgid == tgid)
    }

    fn forget_connections(&mut self, unwanted: impl Fn(Connection, Known) -> bool) -> Result<(), ProbeError> {
        let entries = self.connections.iter().filter_map(Result::ok);
        let unwanted = entries.filter(|(connection, known)| {
            let connection = Connection::split_from(connection).map(|(connection, _)| connection);
            let known = Known::split_from(known).map(|(known, _)| known);
            connection.zip(known).is_some_and(|(connection, known)| unwanted(connection, known))
        });
        let keys: Vec<_> = unwanted.map(|(key, _)| key).collect();
        keys.into_iter().try_for_each(|key| remove(&mut self.connections, key, "CONNECTIONS"))
    }
}
