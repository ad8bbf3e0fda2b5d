//! `koboshi maintain`: what may be typed, and who is asked before something is lost for good.

use std::io::{BufRead, IsTerminal};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};
use koboshi_initramfs::contract::duty::{Blank, FileSystem, HELD, Step, Verify};

use super::{Code, show};
use crate::api::{Client, ClientError, Refusal};
use crate::maintenance::{Account, Address, Asked, Factory, SetUp};
use crate::ops::maintain::{self, Answer, Cancel, Query, Row};

/// See the module.
#[derive(Debug, Args)]
pub(crate) struct Words {
    /// Machine
    machine: Option<String>,
    #[command(subcommand)]
    duty: Option<Duty>,
    /// Take its order back, unless it is under way
    #[arg(long, requires = "machine")]
    cancel: bool,
    /// Start the machine anew at once, from the network, by its BMC
    #[arg(long, global = true)]
    now: bool,
    /// The seat it runs in: you know that it will be empty meanwhile
    #[arg(long, value_name = "SEAT", global = true)]
    seat: Option<String>,
    /// The order is good for so long: 24h, 90m, 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = expires, global = true)]
    expires: u64,
    /// Only say what would be done
    #[arg(long, global = true)]
    dry: bool,
    /// State directory of the appliance
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/koboshi",
        env = "KOBOSHI_STATE",
        global = true
    )]
    state: PathBuf,
    /// For programs
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Duty {
    /// Wipe disks, read them back, and sign a receipt
    Wipe {
        /// The machine's serial number, as on its sticker: nothing is written on a machine that has another one.
        /// Asked for if it is not given
        #[arg(long)]
        serial: Option<String>,
        /// Only the disk with this serial number; more than once for more. All that are fixed in the machine if none
        #[arg(long = "disk", value_name = "SERIAL")]
        disks: Vec<String>,
        /// What is done to each disk, in order
        #[arg(long, value_enum, value_delimiter = ',', default_value = "zeros")]
        method: Vec<Method>,
        /// How much is read back at the end
        #[arg(long, value_enum, default_value = "all")]
        verify: ReadBack,
    },
    /// Make a file system on disks that hold nothing, for seats with `disks = { "/data" = "LABEL=db" }`; and sign a receipt
    PrepareDisks {
        /// The machine's serial number, as on its sticker: nothing is written on a machine that has another one.
        /// Asked for if it is not given
        #[arg(long)]
        serial: Option<String>,
        /// The disk with this serial number; more than once for more
        #[arg(long = "disk", value_name = "SERIAL", required = true)]
        disks: Vec<String>,
        /// The label by which seats find it; one for each disk, in their order
        #[arg(long = "label", value_name = "LABEL", required = true)]
        labels: Vec<String>,
        /// What is made on each
        #[arg(long, value_enum, default_value = "ext4")]
        fs: Fs,
        /// Put it into a GPT partition over the whole disk; else it has the disk to itself
        #[arg(long)]
        partition: bool,
        /// What may be lost: a disk with anything on it is left alone, unless all that is on it is named here. What is
        /// on it, the refusal says
        #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = PossibleValuesParser::new(HELD))]
        force: Vec<String>,
    },
    /// Look into the machine's slots and sockets and ask its BMC (`koboshi hardware` shows it); give the BMC its
    /// address, and the site's account
    Setup(SetUpWords),
    /// A shell on the console, in the image `rescue`
    Rescue,
    /// Memtest86+, on the serial console; it tests until the machine is started anew, and reports to nobody
    Memtest,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Fs {
    /// Labels of up to 16 characters
    Ext4,
    /// Labels of up to 12 characters, disks of 300 MB or more
    Xfs,
}

/// What of a machine is set up.
#[derive(Debug, Args)]
struct SetUpWords {
    /// Where the BMC shall be, like 10.78.0.7/24. Alone it is what the site file says of it
    #[arg(
        long,
        value_name = "ADDRESS/BITS",
        num_args = 0..=1,
        default_missing_value = "site",
        value_parser = address,
        conflicts_with = "bmc_dhcp"
    )]
    bmc_address: Option<Address>,
    /// The BMC asks DHCP for its address
    #[arg(long, conflicts_with = "bmc_gateway")]
    bmc_dhcp: bool,
    /// The BMC's router; that of the site's subnet of BMCs, if that has one
    #[arg(long, value_name = "ADDRESS")]
    bmc_gateway: Option<Ipv4Addr>,
    /// The BMC's VLAN, or `none`
    #[arg(long, value_name = "ID", value_parser = vlan)]
    bmc_vlan: Option<u16>,
    /// The account that the site file names for the BMC shall be on it, as administrator. The appliance sees to that
    /// over the BMCs' network when the machine has done its part: no password passes through the machine
    #[arg(long)]
    bmc_user: bool,
    /// The account that the BMC left its factory with, which makes the site's
    #[arg(long, value_name = "NAME", requires = "bmc_user", requires = "factory_password_file")]
    factory_user: Option<String>,
    /// The file with that one's password, for the appliance to read
    #[arg(long, value_name = "FILE", requires = "factory_user")]
    factory_password_file: Option<PathBuf>,
    /// Disable the factory's account once the site's is proved to work
    #[arg(long, requires = "factory_user")]
    disable_factory: bool,
}

impl SetUpWords {
    fn asked(self) -> anyhow::Result<SetUp> {
        let address = self.bmc_address.or(self.bmc_dhcp.then_some(Address::Dhcp));
        let factory = match (self.factory_user, self.factory_password_file) {
            (Some(user), Some(file)) => {
                // The appliance's folder is not that of whoever types.
                Some(Factory { user, password_file: std::path::absolute(file)? })
            }
            _ => None,
        };
        let account = Account { factory, disable: self.disable_factory };
        Ok(SetUp {
            address,
            gateway: self.bmc_gateway,
            vlan: self.bmc_vlan,
            account: self.bmc_user.then_some(account),
        })
    }
}

fn address(text: &str) -> Result<Address, String> {
    if text == "site" {
        return Ok(Address::Site);
    }
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let wrong = |_| "like 10.78.0.7/24".to_string();
    let address = address.parse::<Ipv4Addr>().map_err(|error| wrong(error.to_string()))?;
    let prefix = prefix.map(str::parse::<u8>).transpose();
    let prefix = prefix.map_err(|error| wrong(error.to_string()))?;
    Ok(Address::At { address, prefix })
}

fn vlan(text: &str) -> Result<u16, String> {
    match text {
        "none" => Ok(0),
        id => {
            let id = id.parse().ok().filter(|id| (1..=4094).contains(id));
            id.ok_or_else(|| "1 to 4094, or none".to_string())
        }
    }
}

/// A step of a wipe.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Method {
    /// Every byte becomes 0
    Zeros,
    /// Every byte becomes pseudo-random
    Random,
    /// A flash disk forgets by itself; one that cannot is overwritten with zeros
    Discard,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ReadBack {
    /// Every byte
    All,
    /// Beginning, end, and a thousand places between
    Samples,
    /// Nothing
    None,
}

fn expires(text: &str) -> Result<u64, String> {
    let wrong = || "like 90m, 24h or 7d".to_string();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = match unit {
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let ms = number.checked_mul(unit).filter(|ms| (60_000..=365 * 86_400_000).contains(ms));
    ms.ok_or_else(|| "a minute to a year".to_string())
}

/// Runs what was typed.
pub(super) async fn run(mut words: Words) -> anyhow::Result<()> {
    let client = Client::new(&words.state);
    let Some(machine) = words.machine.clone() else {
        if words.duty.is_some() {
            return usage("which machine? koboshi maintain m07 wipe");
        }
        let rows: Vec<Row> = client.get("/maintain", &()).await?;
        return show(&rows, words.json, |rows| maintain::show_list(rows));
    };
    if words.cancel {
        let row: Row = client.post("/maintain/cancel", &Cancel { machine }).await?;
        return show(&row, words.json, |row| {
            format!("{}: {} is {}\n", row.ticket.machine, row.ticket.duty, row.ticket.says)
        });
    }
    let Some(duty) = words.duty.take() else {
        let rows: Vec<Row> = client.get("/maintain", &()).await?;
        let its: Vec<Row> = rows.into_iter().filter(|row| row.ticket.machine == machine).collect();
        return show(&its, words.json, |rows| maintain::show_list(rows));
    };
    let asked = match duty {
        Duty::Setup(words) => Asked::Setup(words.asked()?),
        Duty::Rescue => Asked::Rescue,
        Duty::Memtest => Asked::Memtest,
        Duty::Wipe { serial, disks, method, verify } => {
            let steps = method.into_iter().map(|method| match method {
                Method::Zeros => Step::Zeros,
                Method::Random => Step::Random,
                Method::Discard => Step::Discard,
            });
            let verify = match verify {
                ReadBack::All => Verify::All,
                ReadBack::Samples => Verify::Samples,
                ReadBack::None => Verify::None,
            };
            let named = serial.clone().unwrap_or_else(|| "-".to_string());
            let asked = Asked::Wipe { serial: named, disks, steps: steps.collect(), verify };
            meant(&client, &words, &machine, asked, serial.is_some()).await?
        }
        Duty::PrepareDisks { serial, disks, labels, fs, partition, force } => {
            if disks.len() != labels.len() {
                return usage("one --label for each --disk, in their order");
            }
            let disks = disks.into_iter().zip(labels);
            let disks = disks.map(|(serial, label)| Blank { serial, label }).collect();
            let fs = match fs {
                Fs::Ext4 => FileSystem::Ext4,
                Fs::Xfs => FileSystem::Xfs,
            };
            let named = serial.clone().unwrap_or_else(|| "-".to_string());
            let asked = Asked::PrepareDisks { serial: named, disks, fs, partition, force };
            meant(&client, &words, &machine, asked, serial.is_some()).await?
        }
    };
    let (seat, now, dry, expires) = (words.seat, words.now, words.dry, words.expires);
    let mut query = Query { machine, duty: asked, seat, now, dry, expires };
    let answer: Answer = loop {
        match client.post("/maintain", &query).await {
            Err(ClientError::Refused(refusal)) if refusal.is_unsure() && query.seat.is_none() => {
                query.seat = Some(seat_of(&refusal)?);
            }
            answer => break answer?,
        }
    };
    show(&answer, words.json, maintain::show)
}

fn usage<T>(what: &str) -> anyhow::Result<T> {
    eprintln!("koboshi: {what}");
    Err(Code(2).into())
}

/// The same, for the machine whose serial number somebody typed: here, unless it stood on the command line.
async fn meant(
    client: &Client,
    words: &Words,
    machine: &str,
    asked: Asked,
    said: bool,
) -> anyhow::Result<Asked> {
    if said || words.dry {
        return Ok(asked);
    }
    let (seat, now, expires) = (words.seat.clone(), words.now, words.expires);
    let (machine, duty) = (machine.to_string(), asked.clone());
    let look = Query { machine, duty, seat, now, dry: true, expires };
    let look: Answer = client.post("/maintain", &look).await?;
    let lost = match &asked {
        Asked::PrepareDisks { force, .. } if force.is_empty() => {
            "A file system is made on the disks that are named, if they hold nothing."
        }
        Asked::PrepareDisks { .. } => "ALL DATA on the disks that are named will be lost.",
        _ => "ALL DATA on its fixed disks will be lost.",
    };
    Ok(asked.for_serial(serial_of(&look, lost)?))
}

/// Shows what is known of the machine, and asks for its serial number.
fn serial_of(look: &Answer, lost: &str) -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        return usage("nobody is there to be asked: --serial NUMBER says which machine is meant");
    }
    eprint!("{}", maintain::show(look));
    eprint!("{lost}\nType the machine's serial number, from its sticker: ");
    typed()
}

/// Asks for the seat that will be empty.
fn seat_of(refusal: &Refusal) -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        return usage(&ClientError::Refused(refusal.clone()).to_string());
    }
    eprint!("{}.\nType that seat's name: ", refusal.error);
    typed()
}

fn typed() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().lock().read_line(&mut text)?;
    match text.trim() {
        "" => {
            eprintln!("koboshi: nothing was done");
            Err(Code(1).into())
        }
        text => Ok(text.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bmcs_place_is_typed() {
        let at = |prefix| Address::At { address: [10, 78, 0, 7].into(), prefix };
        assert_eq!(address("10.78.0.7/24"), Ok(at(Some(24))));
        assert_eq!(address("10.78.0.7"), Ok(at(None)));
        assert_eq!(address("site"), Ok(Address::Site));
        for bad in ["", "10.78.0", "10.78.0.7/", "10.78.0.7/x", "10.78.0.7/256", "fe80::1/64"] {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert_eq!((vlan("none"), vlan("78")), (Ok(0), Ok(78)));
        assert!(vlan("0").is_err() && vlan("4095").is_err() && vlan("x").is_err());
    }

    #[test]
    fn an_order_is_good_for_a_time() {
        assert_eq!(expires("90m"), Ok(5_400_000));
        assert_eq!(expires("24h"), Ok(86_400_000));
        assert_eq!(expires("7d"), Ok(604_800_000));
        for bad in ["", "h", "24", "0h", "-1h", "400d", "1é", "99999999999999999999d", "1.5h"] {
            assert!(expires(bad).is_err(), "{bad}");
        }
    }
}
