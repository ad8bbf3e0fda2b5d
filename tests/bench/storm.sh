# shellcheck shell=sh
# Machines switched on within ten seconds, 1 % of all packets lost: against the appliance, and then against Kea,
# dnsmasq and nginx with files of the same sizes. Read by run.sh; docs/storm.svg was drawn by it.

koboshi lab storm --machines "${MACHINES:-10000}" --peer kea --plot "${PLOT:-$dir/storm.svg}"
