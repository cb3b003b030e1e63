# Completions of trajectory for bash.
_trajectory() {
    COMPREPLY=()
    case ${COMP_WORDS[COMP_CWORD - 1]} in
    --velocity | --bc | --range | --step) return ;; # a number
    esac
    # Not mapfile: the bash of macOS has none.
    COMPREPLY=($(compgen -W '--velocity --bc --range --step --version --help' -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _trajectory trajectory
