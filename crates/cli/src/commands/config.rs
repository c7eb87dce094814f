//! `tenantry config`.

use anyhow::{Context as _, Result};
use tenantry_server::config::{Settings, reference};

use crate::arguments::Config;
use crate::serve::read_config;

pub(crate) fn run(command: &Config) -> Result<()> {
    match command {
        Config::Reference => print!("{}", reference()),
        Config::Check { file } => {
            let config = read_config(Some(file))?;
            Settings::from_config(&config).with_context(|| file.display().to_string())?;
            println!("{} is a good configuration", file.display());
        }
    }
    Ok(())
}
