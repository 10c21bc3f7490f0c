function _particle_os_completion
    set -l response (env _PARTICLE_OS_COMPLETE=fish_complete COMP_WORDS=(commandline -cp) \
        COMP_CWORD=(commandline -t) particle-os)
    for line in $response
        set -l item (string split -m 1 "," -- $line)
        switch $item[1]
            case dir
                __fish_complete_directories $item[2]
            case file
                __fish_complete_path $item[2]
            case plain
                printf '%s\n' $item[2]
        end
    end
end

complete --no-files --command particle-os --arguments "(_particle_os_completion)"
