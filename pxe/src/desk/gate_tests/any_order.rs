//! Whatever happens in whatever order, no two machines sit in one seat.

use proptest::prelude::*;

use super::*;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Happens {
    Reset(usize),
    Discover(usize, bool),
    Request(usize, bool),
    Script(usize),
    Report(usize),
    Dies(usize),
    Fence(usize),
    Down(usize),
    NobodyAnswers(usize),
    Matrix([usize; MACHINES]),
    Restart,
    RestartBeforeWriting,
    SecondNic(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    let machine = 0..MACHINES;
    let matrices =
        prop::sample::select(vec![[0, 1, 2], [1, 0, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1]]);
    prop_oneof![
        3 => machine.clone().prop_map(Happens::Reset),
        6 => (machine.clone(), any::<bool>()).prop_map(|(m, rom)| Happens::Discover(m, rom)),
        6 => (machine.clone(), any::<bool>()).prop_map(|(m, rom)| Happens::Request(m, rom)),
        5 => machine.clone().prop_map(Happens::Script),
        3 => machine.clone().prop_map(Happens::Report),
        1 => machine.clone().prop_map(Happens::Dies),
        1 => machine.clone().prop_map(Happens::Fence),
        1 => machine.clone().prop_map(Happens::Down),
        1 => machine.clone().prop_map(Happens::NobodyAnswers),
        2 => matrices.prop_map(Happens::Matrix),
        1 => Just(Happens::Restart),
        1 => Just(Happens::RestartBeforeWriting),
        1 => machine.prop_map(Happens::SecondNic),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens in whatever order, as long as nobody lies about what is off.
    #[test]
    fn never_two_machines_in_one_seat(events in prop::collection::vec(happens(), 1..120)) {
        let mut rack = Rack::new(Exclusive::Probe);
        let rom = |rom| if rom { Client::Firmware } else { Client::Ipxe };
        // What was offered and not yet acknowledged may be lost with the process; whoever fetches a
        // script has been written down for seconds.
        let mut late = false;
        for event in events {
            if !late || !matches!(event, Happens::RestartBeforeWriting) {
                rack.write();
            }
            match event {
                Happens::Reset(machine) | Happens::Dies(machine) => {
                    rack.reset(machine);
                    rack.offered[machine] = None;
                }
                // Only what is not running asks: a machine that runs is reset before.
                Happens::Discover(machine, _) if rack.runs[machine].is_some() => {}
                Happens::Discover(machine, by) => {
                    rack.answers[machine] = None;
                    rack.discover(machine, rom(by));
                }
                Happens::Request(machine, _) if rack.runs[machine].is_some() => {}
                Happens::Request(machine, by) => {
                    let _acked = rack.request(machine, rom(by));
                }
                Happens::Script(machine) => drop(rack.script(machine)),
                Happens::Report(machine) => drop(rack.report(machine)),
                Happens::Fence(machine) => drop(rack.fence(machine)),
                Happens::Down(machine) => {
                    if let Some(id) = rack.runs[machine].take() {
                        rack.desk.reached(id, Stage::Down);
                        rack.answers[machine] = None;
                        rack.offered[machine] = None;
                    }
                }
                Happens::NobodyAnswers(machine) => {
                    rack.desk.look_for_holder(mac(machine));
                    let seat = seat_name(rack.matrix[machine]);
                    let holders = rack.desk.holders();
                    let holder = holders.into_iter().find(|holder| holder.seat == seat);
                    if let Some(holder) = holder && !rack.answers.contains(&Some(holder.address)) {
                        rack.desk.vacate(&holder, "nobody answers".into());
                    }
                }
                Happens::Matrix(matrix) => rack.matrix(matrix.to_vec()),
                Happens::Restart => {
                    rack.write();
                    rack.restart();
                }
                Happens::RestartBeforeWriting => rack.restart(),
                Happens::SecondNic(machine) => {
                    let asks = Asks::Dhcp { client: Client::System, archs: vec![], discover: true };
                    let step = rack.desk.ask(&Facts { mac: second(machine), asks });
                    if let Action::Address { address: Some(address), .. } = step.action {
                        prop_assert!(!rack.answers.contains(&Some(address)), "{address} twice");
                    }
                }
            }
            rack.check();
            late = matches!(event, Happens::Discover(..));
        }
    }
}
