_particle_os_completion() {
    local IFS=$'\n' response line type value
    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \
        _PARTICLE_OS_COMPLETE=bash_complete "$1")
    while read -r line; do
        type=${line%%,*} value=${line#*,}
        case $type in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            # 'compopt -o filenames' does not quote '$' in the names of missing files.
            plain) COMPREPLY+=("$(printf %q "$value")") ;;
        esac
    done <<< "$response"
}

complete -o nosort -F _particle_os_completion particle-os
