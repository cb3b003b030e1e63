# Completions of trajectory for fish.
complete -c trajectory -f
complete -c trajectory -l velocity -x -d 'speed at the muzzle'
complete -c trajectory -l bc -x -d 'G1 ballistic coefficient'
complete -c trajectory -l range -x -d 'how far to look'
complete -c trajectory -l step -x -d 'distance between lines'
complete -c trajectory -l version -d 'print the version'
complete -c trajectory -l help -d 'print the options'
