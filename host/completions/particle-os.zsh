#compdef particle-os

_particle_os_completion() {
    local -a response words_found
    local type value description
    (( $+commands[particle-os] )) || return 1
    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \
        _PARTICLE_OS_COMPLETE=zsh_complete particle-os)}")
    for type value description in ${response}; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            plain) words_found+=("$value") ;;
        esac
    done
    (( $#words_found )) && compadd -U -V unsorted -a words_found
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    # zsh calls the function when it reads the file from a directory of its path.
    _particle_os_completion "$@"
else
    compdef _particle_os_completion particle-os
fi
