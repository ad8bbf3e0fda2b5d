//! What `--help` says beyond a line.

/// Of `koboshi console`.
pub(super) const CONSOLE: &str = "\
One person types into a line, any number look. The line is yours when it is free; where somebody has it you see who,
and ask for it or take it. It is free again when you leave, and yours to lose when you type nothing for so long as the
site says ([console] idle) and somebody asks. The line itself is always on.

At the beginning of a line, ~ and a key (~? shows them all):
  ~.  leave        ~a  ask for the line    ~t  take it        ~r  let go of it    ~h  hand it over
  ~B  BREAK        ~S  SysRq and its key   ~w  who is here    ~l  last lines      ~v  the screen as it stands
  ~~  send one ~

Within ssh, which takes the first ~ for itself, type one more for each ssh around: ~~. leaves here.

  koboshi console m01                    look and type
  koboshi console m01 --take             at 3 a.m., when whoever has it went to bed
  koboshi console m01 --watch            only look
  koboshi console m01 --url              an address for a browser, good once, within a minute (--watch: only to look)
  koboshi console m01 --sysrq b          reboot a kernel that hears nothing else (--break: a BREAK alone)
  koboshi console m01 --escape '^]'      another escape character; none: everything is typed
  echo reboot | koboshi console sw1      type what comes, and leave
  koboshi console sw1 --script close-port.expect Gi1/0/7
                                         what a person would do, by a script; --dry says what that is.
                                         It is 0 if all went well, 1 if not, 2 if the script is wrong";

/// Of `koboshi log`.
pub(super) const LOG: &str = "\
All that a machine says is kept, until its log is as large as the site says ([console] log-size); the oldest goes. It is
read from the appliance, or, where none runs, from the files under --state. What is shown is safe for a terminal: no
escape sequences, carriage returns and backspaces done. The files are what machines sent: less -r STATE/consoles/m01/*.log

  koboshi log m01                              its last 100 lines
  koboshi log m01 -f                           and what it says from now on
  koboshi log @all --since 10m --grep panic --context 3
  koboshi log m[01-40] --since 02:00 --until 02:15 --times
  koboshi log m01 --since 1h --export cast > m01.cast

What machines log by syslog is kept beside it, by the address it comes from ([net] syslog, netconsole; [logs] size, total):
grep -r oom STATE/syslog. A sender that is no machine of the site has its address for a name.

  koboshi log m01 --from syslog -f
  koboshi log @web --priority err --since 1h   errors and what is graver
  koboshi log m07 --from all --since 02:00     console and logs in the order of time
  koboshi log @unknown --from syslog           of no machine: --from syslog 10.77.0.240, for one";

/// Of `koboshi export known-hosts`.
pub(super) const KNOWN_HOSTS: &str = "\
No image holds a host key: who reaches the provisioning network reads images. A machine makes its own at each boot and
shows the public half on its console, where the appliance reads it. The console is the machine's own wire (its BMC's
session, its serial port): a host that took the machine's address cannot write there. So a wrong key is seen at the first
connection too, where `ssh` alone would have you type yes. The first key that a boot shows is the one that counts; another
one while it runs is an event (`koboshi events`).

A machine is listed under its own name, its seat's, its host name and its addresses, as long as it runs. It needs a
console in the site file, and an image with systemd and OpenSSH's server. One that is missing shows its key again after
`systemctl restart koboshi-ssh-host-keys-shown` there.

  koboshi export known-hosts > /etc/ssh/ssh_known_hosts    as it is now; again after each boot
  koboshi export known-hosts --json                        with fingerprints, boots and times

So that ssh asks the appliance itself, each time (OpenSSH 8.5 or newer), in ~/.ssh/config:

  Match host web*,m*
      KnownHostsCommand /usr/bin/koboshi export known-hosts --host %H
      UserKnownHostsFile none
      StrictHostKeyChecking yes";

/// Of `koboshi maintain`.
pub(super) const MAINTAIN: &str = "\
An order is for the machine's next netboot, once: it boots the order's image instead of its seat's, does the work, and
starts anew into what it was. Images that orders want (wipe, setup, rescue) are made by `koboshi image build wipe --publish`; the
site file needs no role for them. `koboshi status --watch` shows how far a wipe is, its console too.

  koboshi maintain m07 wipe --serial CZ123 --now    all fixed disks; not a byte on a machine with another serial number
  koboshi maintain m07 wipe --serial CZ123 --disk S4RFX --method discard,random
  koboshi maintain m07 prepare-disks --serial CZ123 --disk S4RFX --label db
                                                    an ext4 for seats with disks = { \"/data\" = \"LABEL=db\" }; a disk that
                                                    holds anything is left alone, and what is on it told
  koboshi maintain m07 prepare-disks --serial CZ123 --disk S4RFX --label db --fs xfs --force gpt,ext4
  koboshi maintain m07 rescue --seat web1           a shell, though it runs in web1
  koboshi maintain m07 memtest --now                its screen is on the console (`koboshi console m07`); what it finds
                                                    stands there alone, and `koboshi power m07 cycle` ends it
  koboshi maintain m07 setup                        slots, sockets, BMC: `koboshi hardware m07` shows what was found
  koboshi maintain m07 setup --bmc-address 10.78.0.7/24 --bmc-user --factory-user ADMIN \\
    --factory-password-file FILE --disable-factory  a server out of its box, after `koboshi adopt MAC`: the machine gives
                                                    its BMC the address, the appliance makes the site's account there
  koboshi maintain                                  what is ordered, and what came of it
  koboshi maintain m07 --cancel
  koboshi receipt verify                            whether receipts are as they were signed";
