//! What confinement costs at the least, whoever does it: the kernel is asked for each layer in as few lines as can ask
//! for it, in processes of the benchmark's own. What our daemon takes beyond that is ours to answer for.
//!
//! `layers` asks for one layer each; `parked` is a worker of all of them that waits for one command, as either spawn
//! plan has it; `steps` times single layers. Nothing here is fit to confine anybody: it runs `/bin/true`.
//!
//! One layer is missing: no crate that this one may use makes an idmapped mount. It is made before a worker parks and the
//! command here doesn't touch it, so the floor on the request's path is the same without.

pub(crate) mod layers;
pub(crate) mod parked;
pub(crate) mod steps;
