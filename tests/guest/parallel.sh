# A hundred writers at once, each with a file of its own and one for all.
set +x
writer=0
while [ $writer -lt 100 ]; do
    (
        line=0
        while [ $line -lt 50 ]; do
            echo "$writer $line" >> "own-$writer"
            echo "$writer $line" >> common
            line=$((line + 1))
        done
    ) &
    writer=$((writer + 1))
done
wait
set -x
drop_caches
same "$(cat own-* | wc -l)" 5000
same "$(cat own-* | sort -u | wc -l)" 5000
same "$(wc -l < common)" 5000
same "$(sort common | md5sum)" "$(cat own-* | sort | md5sum)"

# A lock is one process's at a time: without it, this counter would lose steps.
echo 0 > counter
writer=0
while [ $writer -lt 10 ]; do
    (
        step=0
        while [ $step -lt 5 ]; do
            flock lock sh -c 'read -r n < counter; echo $((n + 1)) > counter'
            step=$((step + 1))
        done
    ) &
    writer=$((writer + 1))
done
wait
same "$(cat counter)" 50
flock lock sh -c 'fails() { if "$@"; then return 1; fi; }; fails flock -n lock true'
