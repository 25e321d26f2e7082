//! The objects of this side that the peer holds by reference.

use std::{collections::HashMap, sync::Arc};

use slab::Slab;

use crate::{Failure, endpoint::Object};

/// Objects that were given out, by number.
#[derive(Debug, Default)]
pub(super) struct Objects {
    given: Slab<Given>,
    /// Numbers by the objects' addresses, so that an object given out twice keeps its number.
    numbers: HashMap<usize, u32>,
    /// Numbers of objects that the peer has released, and that messages may still give back which nobody
    /// has looked at.
    late: Vec<u32>,
}

#[derive(Debug)]
struct Given {
    object: Arc<dyn Object>,
    /// How often it was given out and not given back: giving out and back can cross.
    count: u32,
}

fn address(object: &Arc<dyn Object>) -> usize {
    Arc::as_ptr(object).cast::<()>() as usize
}

impl Objects {
    /// Gives an object out once more.
    ///
    /// # Errors
    /// When the peer holds as many as `limit`.
    pub(super) fn give(&mut self, object: &Arc<dyn Object>, limit: u32) -> Result<u32, Failure> {
        if let Some(&number) = self.numbers.get(&address(object)) {
            self.given[number as usize].count += 1;
            return Ok(number);
        }
        if self.given.len() >= limit as usize {
            return Err(Failure::limit(
                "objects",
                format_args!("the peer holds {limit}"),
                "let it release some, or raise `Settings::objects`",
            ));
        }
        let number = self.given.insert(Given {
            object: Arc::clone(object),
            count: 1,
        }) as u32;
        self.numbers.insert(address(object), number);
        Ok(number)
    }

    /// The object of a number.
    pub(super) fn get(&self, number: u32) -> Option<Arc<dyn Object>> {
        self.given
            .get(number as usize)
            .map(|given| Arc::clone(&given.object))
    }

    /// Takes back what was given out `count` times; returns the object once the peer holds it no
    /// more, to be dropped outside of any lock. `Err` where it was not given out that often.
    pub(super) fn take_back(
        &mut self,
        number: u32,
        count: u32,
    ) -> Result<Option<Arc<dyn Object>>, ()> {
        let given = self.given.get_mut(number as usize).ok_or(())?;
        given.count = given.count.checked_sub(count).ok_or(())?;
        if given.count > 0 {
            return Ok(None);
        }
        let object = self.given.remove(number as usize).object;
        self.numbers.remove(&address(&object));
        Ok(Some(object))
    }

    /// The same, where the object is to be found until [`Self::take_late`].
    pub(super) fn take_back_late(&mut self, number: u32, count: u32) -> Result<(), ()> {
        let given = self.given.get_mut(number as usize).ok_or(())?;
        given.count = given.count.checked_sub(count).ok_or(())?;
        if given.count == 0 {
            self.late.push(number);
        }
        Ok(())
    }

    /// Objects that were kept, where nobody may ask for them any more; to be dropped outside of any lock.
    pub(super) fn take_late(&mut self) -> Vec<Arc<dyn Object>> {
        let late = std::mem::take(&mut self.late);
        let released = late.into_iter();
        released
            .filter_map(|number| self.take_back(number, 0).ok().flatten())
            .collect()
    }

    /// Whether objects are kept for messages that nobody has looked at.
    pub(super) fn has_late(&self) -> bool {
        !self.late.is_empty()
    }

    /// All of them, when the connection is gone.
    pub(super) fn take_all(&mut self) -> Vec<Arc<dyn Object>> {
        self.numbers.clear();
        self.given.drain().map(|given| given.object).collect()
    }

    /// How many the peer holds.
    pub(super) fn len(&self) -> usize {
        self.given.len()
    }
}
