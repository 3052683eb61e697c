//! What one function's machine code says about the objects that it is given.
//!
//! Each question has a form in C, which stands with it. An answer counts only when every way through the function that
//! answers at all gives the same.

use super::Unproven;
use super::image::Image;
use super::walk::{self, Event, Value};

/// Refuses two offsets of one field that differ.
pub fn agree(field: &'static str, one: &str, other: &str, left: u32, right: u32) -> Result<(), Unproven> {
    if left == right {
        return Ok(());
    }
    Err(Unproven::new(field, format!("{one} says {left:#x}, {other} says {right:#x}")))
}

/// The binary's functions.
pub struct Code<'a, 'data> {
    image: &'a Image<'data>,
}

impl<'a, 'data> Code<'a, 'data> {
    pub fn of(image: &'a Image<'data>) -> Self {
        Self { image }
    }

    /// The text at `address`.
    pub fn text(&self, address: u64) -> Option<&'data str> {
        self.image.text(address)
    }

    /// What `caller` gives as the first argument to the function called `name`.
    pub fn given_to<'b>(&self, caller: &'b Facts, name: &str) -> impl Iterator<Item = &'b Value> {
        let address = self.image.symbol(name).map(|symbol| symbol.address);
        caller.events.iter().filter_map(move |event| match event {
            Event::Call { target, arguments, .. } if target.is_some() && *target == address => {
                Some(&arguments[0])
            }
            _ => None,
        })
    }

    /// The functions that `caller` calls with `first` as their first argument, each once.
    pub fn callees_with(&self, caller: &Facts, first: &Value) -> impl Iterator<Item = Facts> {
        let mut targets = Vec::new();
        for event in &caller.events {
            if let Event::Call { target: Some(target), arguments, .. } = event
                && arguments[0] == *first
                && !targets.contains(target)
            {
                targets.push(*target);
            }
        }
        let name = format!("what {} calls", caller.name);
        targets
            .into_iter()
            .map(move |target| Facts { name: name.clone(), events: walk::events(self.image, target) })
    }

    /// What the one function does whose name is the first of `prefixes`, or begins with one of them. A name without `_Z`
    /// must be the whole name.
    pub fn facts(&self, field: &'static str, prefixes: &[&'static str]) -> Result<Facts, Unproven> {
        let name = prefixes.first().copied().unwrap_or_default();
        let mut symbol = self.image.symbol(name).filter(|symbol| symbol.is_function);
        if symbol.is_none() && name.starts_with("_Z") {
            symbol = self
                .image
                .function(name, prefixes)
                .map_err(|error| Unproven::new(field, error.to_string()))?;
        }
        let symbol = symbol.ok_or_else(|| Unproven::new(field, format!("there is no function {name}")))?;
        Ok(Facts { name: symbol.name.to_owned(), events: walk::events(self.image, symbol.address) })
    }
}

/// What one function does.
pub struct Facts {
    name: String,
    pub events: Vec<Event>,
}

impl Facts {
    /// The one value in `values`.
    pub fn one<T: PartialEq>(
        &self,
        field: &'static str,
        mut values: impl Iterator<Item = T>,
    ) -> Result<T, Unproven> {
        let first = values
            .next()
            .ok_or_else(|| Unproven::new(field, format!("the code of {} does not show it", self.name)))?;
        if values.any(|value| value != first) {
            return Err(Unproven::new(field, format!("the code of {} shows several", self.name)));
        }
        Ok(first)
    }

    pub fn returns(&self) -> impl Iterator<Item = &Value> {
        self.events.iter().filter_map(|event| match event {
            Event::Return(value) => Some(value),
            _ => None,
        })
    }

    pub fn stores(&self) -> impl Iterator<Item = (&Value, usize, &Value)> {
        self.events.iter().filter_map(|event| match event {
            Event::Store { address, bytes, value } => Some((address, *bytes, value)),
            _ => None,
        })
    }

    pub fn calls(&self) -> impl Iterator<Item = &[Value; 6]> {
        self.events.iter().filter_map(|event| match event {
            Event::Call { arguments, .. } => Some(arguments),
            _ => None,
        })
    }

    /// `return argument0->field`
    pub fn returned_fields(&self, bytes: usize) -> impl Iterator<Item = u32> {
        self.returns().filter_map(move |value| value.loaded_from(bytes)?.offset_in(&Value::argument(0)))
    }

    /// `return &argument0->field`
    pub fn returned_addresses(&self) -> impl Iterator<Item = u32> {
        self.returns().filter_map(|value| value.offset_in(&Value::argument(0)))
    }

    /// `return argument0->object->field`, as the offsets of object and field.
    pub fn returned_fields_behind(&self, bytes: usize) -> impl Iterator<Item = (u32, u32)> {
        self.returns().filter_map(move |value| behind(value.loaded_from(bytes)?))
    }

    /// `return &argument0->object->field`
    pub fn returned_addresses_behind(&self) -> impl Iterator<Item = (u32, u32)> {
        self.returns().filter_map(behind)
    }

    /// `argument0->object->field == number`, four bytes wide.
    pub fn compared_behind(&self) -> impl Iterator<Item = (u32, u32, u32)> {
        self.events.iter().filter_map(|event| match event {
            Event::Compare { left, right: Value::Constant(number) } => {
                let (object, field) = behind(left.loaded_from(4)?)?;
                Some((object, field, u32::try_from(*number).ok()?))
            }
            _ => None,
        })
    }

    /// `argument0->field = argument`
    pub fn stored_arguments(&self, argument: usize, width: usize) -> impl Iterator<Item = u32> {
        self.stores().filter_map(move |(address, bytes, value)| {
            let is_it = bytes == width && *value == Value::argument(argument);
            address.offset_in(&Value::argument(0)).filter(|_| is_it)
        })
    }

    /// `*argument1 = argument0->field`
    pub fn stored_fields(&self, width: usize) -> impl Iterator<Item = u32> {
        self.stores().filter_map(move |(address, bytes, value)| {
            let is_it = bytes == width && *address == Value::argument(1);
            value.loaded_from(width)?.offset_in(&Value::argument(0)).filter(|_| is_it)
        })
    }

    /// Whether `value` is what a call returned that was given `argument`.
    pub fn result_of_call_with(&self, value: &Value, argument: &Value) -> bool {
        self.events.iter().any(|event| match event {
            Event::Call { at, arguments, .. } => arguments.contains(argument) && value.is_result_of(*at),
            _ => false,
        })
    }

    /// Refuses a function that gives `value` to no other.
    pub fn must_pass(&self, field: &'static str, value: &Value) -> Result<(), Unproven> {
        if self.calls().any(|arguments| arguments.contains(value)) {
            return Ok(());
        }
        Err(Unproven::new(field, format!("the code of {} does not confirm it", self.name)))
    }

    /// Refuses a function that does not set the field at `offset` of its first argument.
    pub fn must_store(&self, field: &'static str, offset: u32) -> Result<(), Unproven> {
        self.must_store_in(field, &Value::argument(0).plus(offset.into()))
    }

    pub fn must_store_in(&self, field: &'static str, place: &Value) -> Result<(), Unproven> {
        if self.stores().any(|(address, bytes, _)| address == place && bytes == 8) {
            return Ok(());
        }
        Err(Unproven::new(field, format!("the code of {} does not confirm it", self.name)))
    }
}

/// The offsets in `argument0->object->field`, for the field's address.
pub fn behind(address: &Value) -> Option<(u32, u32)> {
    let object = address.object()?;
    let through = object.loaded_from(8)?.offset_in(&Value::argument(0))?;
    Some((through, address.offset_in(&object)?))
}
