//! All probes on one binary: attached together, taken up again together, detached together.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aya::programs::Program;
use whence_abi::layout::Layout;
use whence_abi::usdt::{ARGUMENTS, Argument, Spec};

use super::attach;
use super::maps::{self, Tables};
use super::pins::LinkName;
use super::points::{self, Point};
use super::{FunctionTargets, ProbeError, Probes};

/// Probes on one binary. Dropping it detaches them; [`Attachment::leave`] lets pinned ones go on.
pub struct Attachment {
    tables: Arc<Mutex<Tables>>,
    slot: u32,
    specs: Vec<u32>,
    links: Vec<OwnedFd>,
    pins: Vec<PathBuf>,
    places: Vec<String>,
    taken_up: bool,
}

impl Attachment {
    /// What records of these probes have as their `target`.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// What was attached to, for people: names of functions or static probes.
    pub fn places(&self) -> &[String] {
        &self.places
    }

    /// Whether the probes were pinned by a collector before this one: there was no gap.
    pub fn taken_up(&self) -> bool {
        self.taken_up
    }

    /// Ends the watch of this process only: probes that are pinned go on, to be taken up by the next collector.
    pub fn leave(mut self) {
        if !self.pins.is_empty() {
            self.pins.clear();
            self.links.clear();
            self.slot = u32::MAX;
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if self.slot == u32::MAX {
            return;
        }
        let failed = |error| tracing::warn!(%error, "cannot take the processes of a detached binary from it");
        maps::lock(&self.tables).end_owning(self.slot).unwrap_or_else(failed);
        for pin in &self.pins {
            if let Err(error) = fs::remove_file(pin) {
                tracing::warn!(pin = %pin.display(), %error, "cannot detach a pinned probe");
            }
        }
        if let Some(directory) = self.pins.first().and_then(|pin| pin.parent()) {
            // Fails when probes are left in it, which are then found again.
            let _ = fs::remove_dir(directory);
        }
        // Beginnings before ends, so that nothing is begun whose end is not seen.
        while self.links.pop().is_some() {}
        maps::lock(&self.tables).free(self.slot, &self.specs).unwrap_or_else(failed);
    }
}

/// Attaches to the functions of `binary`.
pub fn functions(
    probes: &mut Probes,
    binary: &Path,
    targets: &FunctionTargets,
) -> Result<Attachment, ProbeError> {
    let points = points::of_functions(binary, targets)
        .map_err(|source| attach_error("its functions", binary, source))?;
    attach_all(probes, binary, &targets.layout, points)
}

/// Attaches to the static probes of `binary`.
pub fn static_probes(probes: &mut Probes, binary: &Path) -> Result<Attachment, ProbeError> {
    attach_all(probes, binary, &Layout::EMPTY, points::of_static_probes(binary)?)
}

fn attach_error(place: &str, binary: &Path, source: std::io::Error) -> ProbeError {
    ProbeError::Attach { place: place.to_owned(), binary: binary.into(), source }
}

fn attach_all(
    probes: &mut Probes,
    binary: &Path,
    layout: &Layout,
    points: Vec<Point>,
) -> Result<Attachment, ProbeError> {
    let directory = match &probes.pins {
        Some(pins) => {
            Some(pins.of_binary(binary).map_err(|source| attach_error("its inode", binary, source))?)
        }
        None => None,
    };
    let pinned = directory.as_deref().map(pinned_probes).unwrap_or_default();
    let slot = match pinned.first() {
        Some((link, _)) => link.slot,
        None => maps::lock(&probes.tables).add_layout(layout)?,
    };
    let mut attachment = Attachment {
        tables: probes.tables.clone(),
        slot,
        specs: pinned.iter().filter_map(|(link, _)| link.spec).collect(),
        links: Vec::new(),
        pins: pinned.iter().map(|(_, path)| path.clone()).collect(),
        places: Vec::new(),
        taken_up: !pinned.is_empty(),
    };
    for want in points {
        if !attachment.places.contains(&want.place) {
            attachment.places.push(want.place.clone());
        }
        let same =
            |link: &LinkName| link.program == want.program && link.offset == want.offset && link.slot == slot;
        if let Some((_, path)) = pinned.iter().find(|(link, _)| same(link)) {
            let link =
                attach::open_pinned(path).map_err(|source| attach_error(&want.place, binary, source))?;
            attachment.links.push(link);
            continue;
        }
        attachment.taken_up = false;
        let spec = match &want.arguments {
            Some(arguments) => Some(maps::lock(&probes.tables).add_spec(&spec(slot, arguments))?),
            None => None,
        };
        attachment.specs.extend(spec);
        let Some(Program::UProbe(program)) = probes.bpf.program(want.program) else {
            return Err(ProbeError::Incomplete(want.program));
        };
        let program =
            program.fd().map_err(|source| ProbeError::Program { program: want.program, source })?.as_fd();
        let place = want.on(binary, u64::from(spec.unwrap_or(slot)));
        let link =
            attach::attach(program, &place).map_err(|source| attach_error(&want.place, binary, source))?;
        if let Some(directory) = &directory {
            let name = LinkName { program: want.program.to_owned(), offset: want.offset, slot, spec };
            let path = directory.join(name.to_string());
            let pin_error = |source| ProbeError::Pin { path: path.clone(), source };
            fs::create_dir_all(directory).map_err(pin_error)?;
            attach::pin(link.as_fd(), &path).map_err(pin_error)?;
            attachment.pins.push(path);
        }
        attachment.links.push(link);
    }
    maps::lock(&probes.tables).begin_owning(slot)?;
    Ok(attachment)
}

/// The probes that an earlier collector left on a binary.
fn pinned_probes(directory: &Path) -> Vec<(LinkName, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let named =
        |entry: fs::DirEntry| Some((LinkName::parse(&entry.file_name().to_string_lossy())?, entry.path()));
    entries.filter_map(Result::ok).filter_map(named).collect()
}

fn spec(target: u32, arguments: &[Argument]) -> Spec {
    let mut all = [Argument::NONE; ARGUMENTS];
    let count = arguments.len().min(ARGUMENTS);
    all[..count].copy_from_slice(&arguments[..count]);
    Spec { target, count: u32::try_from(count).unwrap_or(0), reserved: 0, arguments: all }
}
