# A file without a name lives while it is open, and no younger file is mistaken for it.
i=0
while [ $i -lt 50 ]; do
    echo "content $i" > victim
    exec 5<> victim
    number=$(stat -L -c %i /dev/fd/5)
    rm victim
    echo "successor $i" > victim
    exec 6< victim
    [ "$(stat -L -c %i /dev/fd/6)" != "$number" ]
    drop_caches
    same "$(cat <&5)" "content $i"
    same "$(cat victim)" "successor $i"
    same "$(stat -L -c '%i %h' /dev/fd/5)" "$number 0"
    echo more >&5
    exec 5<&- 6<&-
    i=$((i + 1))
done

# A hundred of them at once, with as many new files made meanwhile.
mkdir old new
for i in $(seq 100); do echo "$i" > "old/$i"; done
tail -f old/* > /dev/null & reader=$!
sleep 1
rm -r old
for i in $(seq 100); do echo "new $i" > "new/$i"; done
drop_caches
for i in $(seq 100); do same "$(cat "new/$i")" "new $i"; done
same "$(stat -c %i new/* | sort -u | wc -l)" 100
kill $reader
wait $reader || :
