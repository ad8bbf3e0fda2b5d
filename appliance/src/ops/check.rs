//! `koboshi check`: every error of a site file at once, without an appliance. Images are looked up
//! where a state directory is given.

use std::path::Path;

use crate::caveats::caveats;
use crate::site::{self, Problem, Problems, Site};

/// Reads and checks a site file; the problems hold warnings too.
pub fn check(path: &Path, state: Option<&Path>) -> Result<(Site, Problems), Problems> {
    let site = site::load(path, &site::Env::system(site::Purpose::Check))?;
    let mut warnings = site.warnings.clone();
    caveats(&site).iter().for_each(|problem| warnings.push(problem.clone()));
    if let Some(images) =
        state.and_then(|state| koboshi_images::Store::open(state.join("images")).ok())
    {
        for (image, origin) in site.images_used() {
            if let Err(error) = images.resolve(&image.to_string()) {
                let help = format!(
                    "koboshi image import {0} PATH, then koboshi image publish {0}",
                    image.name
                );
                // The error of an image that is only unpublished says what to do itself.
                let there = images.show(&image.name).is_ok();
                let problem = Problem::warning("image", &origin, error.to_string());
                let problem = problem.label("this image");
                warnings.push(problem.maybe_help((!there).then_some(help)));
            }
        }
    }
    Ok((site, warnings))
}
