# Clocks go forward at one pace and interrupts arrive.
before=$(cut -d. -f 1 < /proc/uptime)
sleep 2
after=$(cut -d. -f 1 < /proc/uptime)
[ $((after - before)) -ge 2 ]
[ $((after - before)) -le 20 ]
[ "$(date +%Y)" -ge 2024 ]
ticks=$(awk '/timer|LOC/ { n += $2 } END { print n }' /proc/interrupts)
sleep 1
[ "$(awk '/timer|LOC/ { n += $2 } END { print n }' /proc/interrupts)" -gt "$ticks" ]
# The sleeping half second of one process is another's to work in.
set +x
(sleep 0.5; touch done) &
n=0
while [ ! -e done ]; do n=$((n + 1)); done
set -x
[ $n -gt 10 ]
